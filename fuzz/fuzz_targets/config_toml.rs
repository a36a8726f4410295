//! Any text below a TOML entry: no panic, and what is read survives being written as TOML.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pickup::config::{Config, Surroundings};

fuzz_target!(|text: &str| {
    let surroundings = Surroundings::new("/base").variables(|name| Some(format!("/value/of/{name}")));
    // The array makes the text TOML by weight, whatever follows.
    let text = format!("[hot-deploy.user.a]\npickup_from = [\"/in\"]\n{text}");
    let Ok(config) = Config::parse(&text, None, &surroundings) else { return };
    let again = Config::parse(&config.to_toml(), None, &surroundings).expect("what we write must parse");
    assert_eq!(config.pickups, again.pickups);
    assert_eq!(config.deployers, again.deployers);
    assert_eq!(config.settings, again.settings);
});
