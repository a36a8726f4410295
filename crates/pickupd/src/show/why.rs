//! `pickupd why`: the verdict, and the reasons, the most important first.

use std::path::Path;

use pickup::{Explanation, Why};

use super::Show;
use crate::paint::visible;

pub fn render(show: &Show, path: &Path, explanations: &[Explanation]) -> String {
    if explanations.is_empty() {
        let path = visible(&path.display().to_string());
        return format!("{path}: not watched: it lies in no pickup directory; `pickupd check` lists them\n");
    }
    let mut text = String::new();
    // A path below a pickup directory is looked for in each; where it is found nowhere, that is the answer.
    let is_found = explanations.iter().any(|explanation| explanation.verdict != Why::Missing);
    for explanation in explanations.iter().filter(|explanation| !is_found || explanation.verdict != Why::Missing) {
        let path = visible(&explanation.path.to_string());
        let pickup = visible(&explanation.pickup);
        text.push_str(&format!("{} in {pickup}: {}\n", show.paint.strong(&path), verdict(show, explanation.verdict)));
        for sentence in &explanation.because {
            text.push_str(&format!("  {}\n", visible(sentence)));
        }
        if explanation.unit != explanation.path {
            text.push_str(&format!("  it is part of the unit {}\n", visible(&explanation.unit.to_string())));
        }
    }
    text
}

fn verdict(show: &Show, verdict: Why) -> String {
    let paint = show.paint;
    let text = verdict.as_str();
    match verdict {
        Why::Live => paint.good(text),
        Why::Ignored | Why::NotMatched | Why::Missing => paint.faint(text),
        Why::Waiting | Why::Held => paint.warn(text),
        Why::Refused | Why::Failed => paint.bad(text),
    }
}
