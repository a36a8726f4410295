//! Which dialect a text is in, and what a mistake in it costs.
#![expect(clippy::disallowed_methods, reason = "a configuration is read from a file")]

use insta::assert_snapshot;

use super::super::{Config, Dialect, Surroundings};
use super::{names, parse, parse_well, problems};
use crate::ErrorKind;

fn dialect(text: &str) -> Dialect {
    super::super::detect::dialect(text)
}

#[test]
fn text_that_parses_as_toml_is_toml() {
    for text in
        ["", "# nothing\n", "[hot-deploy.user.a]\npickup_from = \"/x\"\n", "[hot-deploy.user.a]\nenabled=true\n"]
    {
        assert_eq!(dialect(text), Dialect::Toml, "{text}");
    }
}

#[test]
fn bare_words_and_python_booleans_are_zato() {
    for text in [
        "[hot-deploy.user.my.python.code]\npickup_from=/my/custom/directory/\n",
        "[hot-deploy.user.a]\npickup_from = /my/dir\n",
        "[hot-deploy.user.a]\r\npickup_from = /my/dir\r\n",
        "[hot-deploy.user.a]\npickup_from=\"/with # mark\"\npatterns=*.py,\n",
        "[hot-deploy.user.my code]\nenabled=True\n",
        "[csv]\ntopics=\n",
        "[static]\npickup_from=./pickup/incoming/static\npatterns=*\nparse_on_pickup=False\n",
    ] {
        assert_eq!(dialect(text), Dialect::Zato, "{text}");
    }
}

#[test]
fn a_toml_file_with_a_typo_is_still_toml() {
    for text in [
        "[hot-deploy.user.a]\npickup_from = \"/x\"\nquiet = 10ms\n",
        "[hot-deploy.user.a]\npickup_from = \"/x\npatterns = [\"*.py\"]\n",
        "[hot-deploy.user.a]\npickup_from = [\"/x\"\n",
        "[hot-deploy.user.a\npickup_from = \"/x\"\n",
        "[hot-deploy.user.a]\npickup_from = \"/a\"\n[hot-deploy.user.b]\npickup_from = /b\n",
    ] {
        assert_eq!(dialect(text), Dialect::Toml, "{text}");
    }
}

#[test]
fn a_mistake_in_toml_costs_its_own_entry() {
    let text = r#"
[hot-deploy.user.a]
pickup_from = "/a"
[hot-deploy.user.b]
pickup_from = /b
[hot-deploy.user.c]
pickup_from = "/c"
patterns = ["*.py"
[hot-deploy.user.d]
pickup_from = "/d
[hot-deploy.user.e]
pickup_from = "/e"
pickup_from = "/f"
[hot-deploy.user.f
pickup_from = "/f"
[hot-deploy.user.g]
pickup_from = "/g"
"#;
    let config = parse(text);
    assert_eq!(names(&config), ["a", "g"]);
    assert_eq!(config.broken_pickups().into_iter().collect::<Vec<_>>(), ["b", "c", "d", "e"]);
    assert_snapshot!(problems(text), @r#"
    pickup.conf:5:15: error: [hot-deploy.user.b] string values must be quoted, expected literal string
    pickup.conf:8:19: error: [hot-deploy.user.c] unclosed array, expected `]`
    pickup.conf:10:18: error: [hot-deploy.user.d] invalid basic string, expected `"`
    pickup.conf:13:1: error: [hot-deploy.user.e] the key stands twice
    pickup.conf:14:19: error: unclosed table, expected `]`
    "#);
}

#[test]
fn a_toml_section_that_stands_twice_is_broken_and_nothing_else() {
    let text = "
[hot-deploy.user.a]
pickup_from = '/a'
[hot-deploy.user.a]
pickup_from = '/b'
[hot-deploy.user.c]
pickup_from = '/c'
[hot-deploy.user.d.e]
pickup_from = '/d'
[hot-deploy.user.'d.e']
pickup_from = '/e'
";
    assert_eq!(names(&parse(text)), ["c"]);
    assert_snapshot!(problems(text), @r"
    pickup.conf:4:18: error: [hot-deploy.user.a] the section stands twice
    pickup.conf:10:1: error: [hot-deploy.user.d.e] the section stands twice, first in line 8
    ");
}

#[test]
fn a_toml_string_with_lines_like_headers_is_left_whole() {
    let text = "
[deployer.a]
kind = 'exec'
command = ['sh', '-c', '''
[ -e /x ] && true
[hot-deploy.user.fake]
''']
[hot-deploy.user.b]
pickup_from = /b
[hot-deploy.user.c]
pickup_from = '/c'
deploy_to = 'a'
";
    let config = parse(text);
    assert_eq!(names(&config), ["c"]);
    assert!(config.deployers.contains_key("a"));
}

#[test]
fn a_toml_table_is_an_entry_when_it_holds_a_key() {
    let config = parse_well(
        "[hot-deploy.user.a]\npickup_from = '/a'\n[hot-deploy.user.a.b]\npickup_from = '/b'\n[hot-deploy.user.x.y.z]\npickup_from = '/z'\n",
    );
    assert_eq!(names(&config), ["a", "a.b", "x.y.z"]);
    let config = parse_well("hot-deploy.user.a.pickup_from = '/a'\nhot-deploy.user.b = { pickup_from = '/b' }\n");
    assert_eq!(names(&config), ["a", "b"]);
}

#[test]
fn what_no_dialect_can_read_is_an_error() {
    for text in ["this is not = [valid", "{{{", "[hot-deploy.user.x\npickup_from = \"/a", "\0\0", "pickup_from = /x"] {
        let read = Config::parse(text, None, &Surroundings::new("/base"));
        assert!(read.is_err(), "{text}: {read:?}");
    }
    assert_snapshot!(problems("this is not a configuration"), @r"
    unreadable:
    pickup.conf:1:6: error: key with no value, expected `=`
    ");
}

#[test]
fn a_file_is_read_beside_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pickup.conf");
    std::fs::write(&file, "\u{feff}[hot-deploy.user.a]\r\npickup_from=in/\r\n").unwrap();
    let config = Config::load(&file, &Surroundings::default()).unwrap();
    assert_eq!(config.pickups["a"].pickup_from, [directory.path().join("in")]);
    assert_eq!(config.settings.state_dir, directory.path().join(".pickup"));
    let config = Config::load(&file, &Surroundings::new("/said/otherwise")).unwrap();
    assert_eq!(config.pickups["a"].pickup_from, [std::path::Path::new("/said/otherwise/in")]);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pickup.conf");
    let load = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let error = Config::load(&file, &Surroundings::default()).unwrap_err();
        (error.kind(), error.to_string().replace(directory.path().to_str().unwrap(), "DIR"))
    };
    let (kind, message) = load(b"[a]\nb = \"\xff\"\n");
    assert_eq!(kind, ErrorKind::Config);
    assert_snapshot!(message, @"use configuration: DIR/pickup.conf:2:6: error: the file is not UTF-8");
    assert_snapshot!(load(&vec![b'#'; (1 << 20) + 1]).1, @"read configuration of more than 1 MiB: DIR/pickup.conf");
    assert_snapshot!(load(&vec![b'#'; 3 << 20]).1, @"read configuration of more than 1 MiB: DIR/pickup.conf");
    let (kind, message) = load(b"one\ntwo\n");
    assert_eq!(kind, ErrorKind::Config);
    assert_snapshot!(message, @"use configuration: DIR/pickup.conf:1:4: error: key with no value, expected `=`");
    let missing = Config::load(&directory.path().join("none"), &Surroundings::default()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert_eq!(Config::load(directory.path(), &Surroundings::default()).unwrap_err().kind(), ErrorKind::Config);
}
