//! Figures as pictures: SVG by hand, legible on light and dark ground.

use std::fmt::Write as _;

use crate::figure::{Figure, Series, Table, Unit};
use crate::report::{amount, measures};

const WIDTH: f64 = 800.0;
/// Where the axis begins, and ends.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 700.0;
const ROW: f64 = 20.0;
/// Above the rows of a panel, and below them.
const HEADING: f64 = 34.0;
const FOOT: f64 = 30.0;
/// The height of a picture over time.
const TALL: f64 = 240.0;

const STYLE: &str = "<style>\
    text{font:13px system-ui,sans-serif;fill:#24292f}.faint{fill:#6e7781;font-size:11px}.head{font-weight:600}\
    .ours{fill:#0969da}.ours-line{stroke:#0969da}.peer{fill:#8c6d1f}.peer-line{stroke:#8c6d1f}.grid{stroke:#d0d7de}\
    .line{fill:none;stroke-width:1.5}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.ours{fill:#58a6ff}.ours-line{stroke:#58a6ff}\
    .peer{fill:#d4a72c}.peer-line{stroke:#d4a72c}.grid{stroke:#3d444d}}</style>";

/// The pictures of a table, by their file names.
pub fn pictures(table: &Table) -> Vec<(String, String)> {
    let mut pictures = Vec::new();
    let panels: Vec<Vec<&Figure>> = measures(table).into_iter().map(|measure| panel(table, measure)).collect();
    let panels: Vec<_> = panels.into_iter().filter(|figures| figures.len() > 1).collect();
    if !panels.is_empty() {
        pictures.push((format!("{}.svg", table.bench), dots(table, &panels)));
    }
    for (number, series) in table.series.iter().enumerate().filter(|(_, series)| series.points.len() > 1) {
        pictures.push((format!("{}-{}.svg", table.bench, number + 1), over_time(series)));
    }
    pictures
}

/// What is shown of a measure: what has a size.
fn panel<'a>(table: &'a Table, measure: &str) -> Vec<&'a Figure> {
    let is_it =
        |figure: &&Figure| figure.measure == measure && figure.unit != Unit::Count && !figure.samples.is_empty();
    table.figures.iter().filter(is_it).collect()
}

/// A place on a logarithmic axis of whole decades.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn of(figures: &[&Figure]) -> Self {
        let sizes = || figures.iter().flat_map(|figure| &figure.samples).copied().filter(|size| *size > 0.0);
        let (low, high) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
        let from = if low.is_finite() { low.log10().floor() } else { 0.0 };
        Self { from, to: if high > 0.0 { high.log10().ceil().max(from + 1.0) } else { from + 1.0 } }
    }

    /// Nothing stands at the left end.
    fn place(&self, size: f64) -> f64 {
        let share = if size > 0.0 { (size.log10() - self.from) / (self.to - self.from) } else { 0.0 };
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }
}

fn dots(table: &Table, panels: &[Vec<&Figure>]) -> String {
    let height: f64 = panels.iter().map(|panel| HEADING + FOOT + ROW * panel.len() as f64).sum();
    let mut svg = open(&table.title, height);
    let mut top = 0.0;
    for figures in panels {
        let axis = Axis::of(figures);
        let bottom = top + HEADING + ROW * figures.len() as f64;
        let measure = figures.first().map_or("", |figure| figure.measure.as_str());
        let _ = writeln!(svg, r#"<text class="head" x="8" y="{:.0}">{}</text>"#, top + 20.0, escape(measure));
        grid(&mut svg, &axis, figures.first().map_or(Unit::Count, |figure| figure.unit), (top + HEADING - 4.0, bottom));
        for (number, figure) in figures.iter().enumerate() {
            dot(&mut svg, &axis, figure, top + HEADING + ROW * (number as f64 + 0.5));
        }
        top = bottom + FOOT;
    }
    svg + "</svg>\n"
}

fn grid(svg: &mut String, axis: &Axis, unit: Unit, (top, bottom): (f64, f64)) {
    let mut decade = axis.from;
    while decade <= axis.to {
        let (size, x) = (10f64.powf(decade), axis.place(10f64.powf(decade)));
        let _ = writeln!(svg, r#"<path class="grid" d="M{x:.1} {top:.0}V{bottom:.0}"/>"#);
        let label = amount(unit, size * 1.000_001).replace(".00 ", " ").replace(".0 ", " ");
        let y = bottom + 14.0;
        let _ = writeln!(svg, r#"<text class="faint" text-anchor="middle" x="{x:.1}" y="{y:.0}">{label}</text>"#);
        decade += 1.0;
    }
}

/// The median as a dot, and a line from the least to the 99th percentile.
fn dot(svg: &mut String, axis: &Axis, figure: &Figure, y: f64) {
    let class = if figure.is_ours() { "ours" } else { "peer" };
    let of = |share: f64| figure.quantile(share).unwrap_or(0.0);
    let (low, middle, high) = (axis.place(of(0.0)), axis.place(of(0.5)), axis.place(of(0.99)));
    let label = y + 4.0;
    let subject = escape(&figure.subject);
    let _ = writeln!(svg, r#"<text text-anchor="end" x="{:.0}" y="{label:.0}">{subject}</text>"#, LEFT - 12.0);
    let _ = writeln!(svg, r#"<path class="{class}-line" stroke-width="2" d="M{low:.1} {y:.0}H{high:.1}"/>"#);
    let _ = writeln!(svg, r#"<circle class="{class}" cx="{middle:.1}" cy="{y:.0}" r="5"/>"#);
    let size = amount(figure.unit, of(0.5));
    let _ = writeln!(svg, r#"<text x="{:.0}" y="{label:.0}">{size}</text>"#, RIGHT + 14.0);
}

fn over_time(series: &Series) -> String {
    let last = series.points.iter().map(|point| point.0).fold(0.0, f64::max).max(1e-9);
    let most = series.points.iter().map(|point| point.1).fold(0.0, f64::max).max(1e-9);
    let (left, right, top, bottom) = (90.0, WIDTH - 20.0, 36.0, TALL - 30.0);
    let mut svg = open(&series.name, TALL);
    let _ = writeln!(svg, r#"<text class="head" x="8" y="20">{}</text>"#, escape(&series.name));
    for share in [0.0, 0.5, 1.0] {
        let y = bottom - share * (bottom - top);
        let _ = writeln!(svg, r#"<path class="grid" d="M{left} {y:.0}H{right}"/>"#);
        let label = amount(series.unit, share * most);
        let _ = writeln!(
            svg,
            r#"<text class="faint" text-anchor="end" x="{:.0}" y="{:.0}">{label}</text>"#,
            left - 8.0,
            y + 4.0
        );
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let x = left + share * (right - left);
        let label = amount(Unit::Seconds, share * last);
        let y = bottom + 16.0;
        let _ = writeln!(svg, r#"<text class="faint" text-anchor="middle" x="{x:.0}" y="{y:.0}">{label}</text>"#);
    }
    let place = |&(time, size): &(f64, f64)| {
        format!("{:.1} {:.1}", left + time / last * (right - left), bottom - size / most * (bottom - top))
    };
    let path: Vec<String> = series.points.iter().map(place).collect();
    let _ = writeln!(svg, r#"<path class="line ours-line" d="M{}"/>"#, path.join("L"));
    svg + "</svg>\n"
}

fn open(title: &str, height: f64) -> String {
    let size = format!(r#"viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}""#);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" {size} role=\"img\">\n<title>{}</title>\n{STYLE}\n",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
