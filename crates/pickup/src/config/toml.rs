//! TOML text in, document out.

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use super::document::{Data, Document, Entry, Lines, Section, SectionKind, Value};
use super::problem::{Place, Problems};

mod depth;
mod recover;

pub(crate) use depth::too_deep;

/// Reads `text` as TOML. A mistake costs the section it stands in.
pub(crate) fn parse(text: &str, problems: Problems) -> Document {
    let lines = Lines::new(text);
    let mut document = Document { sections: Vec::new(), problems };
    let readable = recover::readable(text, &lines, &mut document);
    if let Ok(table) = DeTable::parse(&readable) {
        Walk { lines: &lines, document: &mut document }.root(table.get_ref());
    }
    document.sections.sort_by_key(|section| section.at);
    document
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;

struct Walk<'a> {
    lines: &'a Lines<'a>,
    document: &'a mut Document,
}

impl Walk<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        for (key, value) in root {
            let name = key.get_ref().as_ref();
            match (name, value.get_ref()) {
                ("hot-deploy", DeValue::Table(table)) => self.hot_deploy(value, table),
                ("deployer", DeValue::Table(table)) => self.deployers(value, table),
                (_, DeValue::Table(table)) => self.section(SectionKind::of(name), name.to_owned(), value, table),
                (_, _) => self.stray(name, key, value),
            }
        }
    }

    /// A value where a section belongs.
    fn stray(&mut self, section: &str, key: &Key<'_>, value: &Spanned<DeValue<'_>>) {
        let at = self.lines.position(key.span().start);
        if is_array_of_tables(value) {
            let mut broken = Section::new(SectionKind::of(section), section, self.lines.position(value.span().start));
            broken.is_broken = true;
            let message = "a section is written in single brackets, and once";
            self.document.problems.error(Place::section(section, broken.at), message);
            self.document.sections.push(broken);
            return;
        }
        let (before, name) = section.rsplit_once('.').unwrap_or(("", section));
        let message = if before.is_empty() {
            "a key must stand below a section, such as `[hot-deploy.user.<name>]`"
        } else {
            "the section needs a name: `[hot-deploy.user.<name>]` or `[deployer.<name>]`"
        };
        self.document.problems.error(Place::key(before, name, at), message);
        if !before.is_empty() {
            let mut broken = Section::new(SectionKind::Malformed, before, at);
            broken.is_broken = true;
            self.document.sections.push(broken);
        }
    }

    fn hot_deploy(&mut self, value: &Spanned<DeValue<'_>>, table: &DeTable<'_>) {
        if table.is_empty() {
            // An empty `[hot-deploy]` says that there is no entry, not even the default one.
            self.section(SectionKind::NoEntries, "hot-deploy".into(), value, table);
        }
        for (key, value) in table {
            let name = format!("hot-deploy.{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if name == "hot-deploy.user" => self.users(value, table),
                DeValue::Table(table) => self.section(SectionKind::of(&name), name, value, table),
                _ => self.stray(&name, key, value),
            }
        }
    }

    fn users(&mut self, value: &Spanned<DeValue<'_>>, table: &DeTable<'_>) {
        if table.is_empty() {
            self.section(SectionKind::Malformed, "hot-deploy.user".into(), value, table);
        }
        for (key, value) in table {
            let name = format!("hot-deploy.user.{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => self.pickups(key.get_ref().to_string(), value, table),
                _ => self.stray(&name, key, value),
            }
        }
    }

    /// The entry `name`, if the table holds any key, and those whose names continue its own.
    fn pickups(&mut self, name: String, value: &Spanned<DeValue<'_>>, table: &DeTable<'_>) {
        let is_group = !table.is_empty() && table.values().all(|value| matches!(value.get_ref(), DeValue::Table(_)));
        for (key, value) in table {
            if let DeValue::Table(table) = value.get_ref() {
                self.pickups(format!("{name}.{}", key.get_ref()), value, table);
            }
        }
        if is_group {
            return;
        }
        let mut section =
            self.empty_section(SectionKind::Pickup(name.clone()), format!("hot-deploy.user.{name}"), value);
        let keys = table.iter().filter(|(_, value)| !matches!(value.get_ref(), DeValue::Table(_)));
        section.entries = self.entries(keys);
        self.document.sections.push(section);
    }

    fn deployers(&mut self, value: &Spanned<DeValue<'_>>, table: &DeTable<'_>) {
        if table.is_empty() {
            self.section(SectionKind::Malformed, "deployer".into(), value, table);
        }
        for (key, value) in table {
            let name = format!("deployer.{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => {
                    self.section(SectionKind::Deployer(key.get_ref().to_string()), name, value, table);
                }
                _ => self.stray(&name, key, value),
            }
        }
    }

    fn section(&mut self, kind: SectionKind, mut name: String, value: &Spanned<DeValue<'_>>, table: &DeTable<'_>) {
        let (mut value, mut table) = (value, table);
        // `[hot-deploy.usr.x]` is shown as it stands, not as the table `usr` with a table in it.
        while let SectionKind::Malformed | SectionKind::Foreign = kind
            && let Some((key, inner)) = table.iter().next()
            && let DeValue::Table(inside) = inner.get_ref()
            && table.len() == 1
        {
            name = format!("{name}.{}", key.get_ref());
            (value, table) = (inner, inside);
        }
        let mut section = self.empty_section(kind, name, value);
        section.entries = self.entries(table);
        self.document.sections.push(section);
    }

    fn empty_section(&self, kind: SectionKind, name: String, value: &Spanned<DeValue<'_>>) -> Section {
        Section::new(kind, name, self.lines.position(value.span().start))
    }

    fn entries<'t, 'i: 't>(
        &self,
        pairs: impl IntoIterator<Item = (&'t Key<'i>, &'t Spanned<DeValue<'i>>)>,
    ) -> Vec<Entry> {
        let entry = |(key, value): (&Key<'_>, &Spanned<DeValue<'_>>)| Entry {
            key: key.get_ref().to_string(),
            at: self.lines.position(key.span().start),
            value: self.value(value),
        };
        let mut entries: Vec<Entry> = pairs.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        let data = match value.get_ref() {
            DeValue::String(text) => Data::Text(text.to_string()),
            DeValue::Integer(number) => Data::Integer(number.as_str().to_owned(), number.radix()),
            DeValue::Boolean(value) => Data::Boolean(*value),
            DeValue::Float(_) => Data::Other("a number with a fraction"),
            DeValue::Datetime(_) => Data::Other("a date"),
            DeValue::Array(items) => Data::List(items.iter().map(|item| self.value(item)).collect()),
            DeValue::Table(table) => Data::Table(self.entries(table)),
        };
        Value { at: self.lines.position(value.span().start), data }
    }
}

fn is_array_of_tables(value: &Spanned<DeValue<'_>>) -> bool {
    match value.get_ref() {
        DeValue::Array(items) => {
            !items.is_empty() && items.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_)))
        }
        _ => false,
    }
}
