//! Log lines on standard error: for people, or as JSON.

use std::fmt;
use std::io::IsTerminal;

use jiff::Zoned;
use pickup::config::{LogFormat, Settings};
use pickup::{Error, ErrorKind};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::exit::Failure;
use crate::paint::{Paint, harmless, steers, visible};

/// What `log` says, if it can be understood.
pub fn filter(log: &str) -> Result<EnvFilter, Error> {
    let parsed = EnvFilter::builder().parse(log);
    parsed.map_err(|error| Error::new(ErrorKind::Config, format!("use the log filter `{log}`: {error}")))
}

/// Starts logging as `settings` say, or with another filter.
pub fn start(settings: &Settings, log: Option<&str>, paint: Paint) -> Result<(), Failure> {
    let filter = filter(log.unwrap_or(&settings.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => builder.event_format(Line { paint, time: time_format() }).init(),
        LogFormat::Json => builder.json().map_event_format(Harmless).init(),
    }
    Ok(())
}

/// Lines of JSON that steer no terminal.
struct Harmless<F>(F);

impl<S, N, F> FormatEvent<S, N> for Harmless<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(cx, Writer::new(&mut line), event)?;
        writer.write_str(&harmless(&line))
    }
}

/// What stands before each line. Who sits at a terminal knows the day.
fn time_format() -> &'static str {
    if std::io::stderr().is_terminal() { "%H:%M:%S%.3f" } else { "%Y-%m-%dT%H:%M:%S%.3f%:z" }
}

/// One line for people: `2026-07-10T14:03:22.123+02:00 INFO  deployed pickup=my.code unit=a.py`.
struct Line {
    paint: Paint,
    time: &'static str,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields { paint: self.paint, message: String::new(), fields: String::new() };
        event.record(&mut fields);
        let time = Zoned::now().strftime(self.time).to_string();
        let level = match *metadata.level() {
            Level::ERROR => self.paint.bad("ERROR"),
            Level::WARN => self.paint.warn("WARN "),
            Level::INFO => self.paint.good("INFO "),
            Level::DEBUG => self.paint.faint("DEBUG"),
            Level::TRACE => self.paint.faint("TRACE"),
        };
        let Fields { message, fields, .. } = fields;
        write!(writer, "{} {level} {message}{fields}", self.paint.faint(&time))?;
        if *metadata.level() > Level::INFO {
            // Who looks this closely looks at the source, too.
            write!(writer, " {}", self.paint.faint(metadata.target()))?;
        }
        writeln!(writer)
    }
}

/// The message, and everything else as ` name=value`.
struct Fields {
    paint: Paint,
    message: String,
    fields: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = visible(value);
        } else if !value.is_empty() {
            let name = self.paint.faint(&format!("{}=", field.name()));
            self.fields.push_str(&format!(" {name}{}", quoted(value)));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A value as it is where that is one word, else in quotes.
fn quoted(value: &str) -> String {
    let is_word = |c: char| !c.is_whitespace() && !steers(c) && !matches!(c, '"' | '=' | '\\');
    if value.chars().all(is_word) { value.to_owned() } else { format!("{value:?}") }
}
