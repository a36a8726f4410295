//! The example file is the code's own account of its defaults.

use super::super::{Config, KEYS, KeySection, Surroundings};
use super::listed;

const EXAMPLE: &str = include_str!("../../../../../pickup.conf.example");

fn read(text: &str) -> Config {
    let config = Config::parse(text, None, &Surroundings::new("/base")).unwrap();
    assert!(config.problems.is_empty(), "{}", listed(&config.problems));
    config
}

/// `# key = value` and `# [section]` without the mark.
fn uncommented(text: &str) -> String {
    let is_code = |line: &str| {
        let key = line.split(" = ").next().filter(|key| *key != line);
        line.starts_with('[') || key.is_some_and(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let line = |line| match str::strip_prefix(line, "# ") {
        Some(code) if is_code(code) => code,
        _ => line,
    };
    text.lines().map(|text| format!("{}\n", line(text))).collect()
}

#[test]
fn the_example_means_what_no_file_means() {
    let embedded = Config::embedded(&Surroundings::new("/base"));
    assert_eq!(read(EXAMPLE), embedded);
    assert_eq!(embedded.pickups["default"].pickup_from, [std::path::Path::new("/base/pickup/incoming/services")]);
}

#[test]
fn what_the_example_comments_out_works_too() {
    let config = read(&uncommented(EXAMPLE));
    assert_eq!(
        config.deployers.keys().collect::<Vec<_>>(),
        ["default", "manager", "plugins", "reload", "server", "site", "store"]
    );
}

#[test]
fn the_example_shows_every_key_with_its_default_and_its_meaning() {
    for (section, keys) in KEYS {
        for key in *keys {
            let code = uncommented(EXAMPLE);
            let shown = code.lines().filter_map(|line| line.split_once(" = ")).filter(|(name, _)| *name == key.name);
            let values: Vec<_> = shown.map(|(_, value)| value).collect();
            assert!(!values.is_empty(), "{} is not shown", key.name);
            assert!(key.default.is_empty() || values.contains(&key.default), "{}: {values:?}", key.name);
            assert!(EXAMPLE.contains(key.doc), "{section:?} {}: {}", key.name, key.doc);
        }
    }
}

/// The text of a section with every default of `KEYS` spelt out.
fn spelt_out(header: &str, sections: &[KeySection]) -> String {
    let mut text = format!("{header}\n");
    for (_, keys) in KEYS.iter().filter(|(section, _)| sections.contains(section)) {
        for key in keys.iter().filter(|key| !key.default.is_empty()) {
            text.push_str(&format!("{} = {}\n", key.name, key.default));
        }
    }
    text
}

#[test]
fn the_defaults_in_the_table_are_the_defaults_in_the_code() {
    let kinds = [
        (KeySection::Copy, "kind = \"copy\"\ninto = \"/x\""),
        (KeySection::Release, "kind = \"release\"\ninto = \"/x\""),
        (KeySection::Exec, "kind = \"exec\"\ncommand = [\"x\"]"),
        (KeySection::Module, "kind = \"module\""),
        (KeySection::Http, "kind = \"http\"\nurl = \"http://x/\""),
        (KeySection::Process, "kind = \"process\"\ncommand = [\"x\"]"),
    ];
    for (section, given) in kinds {
        let short = read(&format!("[deployer.x]\n{given}\n"));
        let long = spelt_out(&format!("[deployer.x]\n{given}"), &[KeySection::Deployer, section]);
        assert_eq!(read(&long), short, "{long}");
    }
    let given = "[hot-deploy.user.x]\npickup_from = \"/x\"";
    assert_eq!(read(&spelt_out(given, &[KeySection::Entry])), read(given));
    let given = "[hot-deploy.user.x]\ngit_url = \"https://example.org/x\"";
    assert_eq!(read(&spelt_out(given, &[KeySection::Git])), read(given));
    assert_eq!(read(&spelt_out("[pickup]", &[KeySection::Settings])), read(""));
}
