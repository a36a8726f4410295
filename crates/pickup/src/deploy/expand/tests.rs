use super::*;
use crate::change::ChangeKind;
use crate::deploy::testing;

fn values(pickup: &str, path: &str) -> Values {
    let mut unit = testing::removed(path);
    unit.pickup = pickup.into();
    unit.change = ChangeKind::Removed;
    Values::new(&unit, Some(Path::new("/scratch/x")))
}

#[test]
fn every_name_is_filled_in() {
    let filled = values("web", "a/b.py").argument("{pickup}|{unit}|{generation}|{path}|{change}");
    assert_eq!(filled, "web|a/b.py|7|/scratch/x|removed");
}

#[test]
fn braces_that_name_nothing_stay() {
    let values = values("web", "a");
    for text in [r#"{"a":{"b":1}}"#, "{", "}", "{}", "{{", "{pick", "a{other}b"] {
        assert_eq!(values.argument(text), text);
    }
    assert_eq!(values.argument("{{pickup}}"), "{web}");
}

#[test]
fn a_value_is_never_filled_in_itself() {
    assert_eq!(values("{unit}", "secret").argument("{pickup}"), "{unit}");
}

#[test]
fn values_in_a_url_are_percent_encoded() {
    let values = values("a b/c", "x y/ü?.py");
    assert_eq!(values.url("http://h/{pickup}/{unit}?g={generation}"), "http://h/a%20b%2Fc/x%20y/%C3%BC%3F.py?g=7");
}

#[test]
fn a_pickup_name_does_not_lead_out_of_a_directory() {
    for bad in ["..", ".", "", "a/b", "/etc", "a/", "a\0b"] {
        assert!(directory("/srv/{pickup}", bad).is_err(), "{bad:?}");
    }
    assert_eq!(directory("/srv/{pickup}/x", "my.code").unwrap(), Path::new("/srv/my.code/x"));
    assert_eq!(directory("/srv/x", "a/b").unwrap(), Path::new("/srv/x"));
}
