//! Surveys of servers that are usual, odd, slow and dead.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::config::GitUrl;
use crate::source::git::worker::Wanted;

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

fn usual() -> String {
    packet(&format!("{ONE} HEAD\0multi_ack symref=HEAD:refs/heads/main agent=git/2\n"))
        + &packet(&format!("{ONE} refs/heads/main\n"))
        + &packet(&format!("{TWO} refs/tags/v1\n"))
        + &packet(&format!("{ONE} refs/tags/v1^{{}}\n"))
        + "0000"
}

/// A server that answers each connection with what `answer` says, and gives what it was asked.
fn server(answers: Vec<Vec<String>>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |parts: Vec<String>| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&length).unwrap(), 16).unwrap();
        let mut question = vec![0; length - 4];
        stream.read_exact(&mut question).unwrap();
        for part in parts {
            stream.write_all(part.as_bytes()).unwrap();
        }
        farewell(&mut stream);
        String::from_utf8(question).unwrap()
    };
    (port, std::thread::spawn(move || answers.into_iter().map(serve).collect()))
}

/// Nothing more is said; what the other says is of no interest.
fn farewell(stream: &mut TcpStream) {
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _reset = std::io::copy(stream, &mut std::io::sink());
}

fn call(port: u16, path: &str, wanted: &[Option<&str>]) -> Call {
    let wanted = wanted.iter().map(|name| Wanted { reference: name.map(str::to_owned) }).collect();
    Call { url: GitUrl::new(format!("git://127.0.0.1:{port}{path}")), wanted }
}

fn at(commit: &str, branch: &str, is_branch: bool) -> Found {
    Found::At { commit: commit.into(), branch: Some(branch.into()), is_branch }
}

#[test]
fn each_is_asked_for_what_is_wanted_of_it() {
    let (text, at_70) = (usual(), 70);
    let (first, second) = text.split_at(at_70);
    let (port, asked) = server(vec![vec![usual()], vec![first.to_owned(), second.to_owned()]]);
    let found = survey(&[call(port, "/a.git", &[None, Some("v1")]), call(port, "/b", &[Some("main"), Some("dev")])]);
    let [Some(one), Some(other)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(one[..], [at(ONE, "main", true), at(ONE, "v1", false)]);
    assert_eq!(other[0], at(ONE, "main", true));
    assert!(matches!(&other[1], Found::Missing { reason } if reason.contains("`dev`")), "{other:?}");
    let asked = asked.join().unwrap();
    assert_eq!(asked, ["git-upload-pack /a.git\0host=127.0.0.1\0", "git-upload-pack /b\0host=127.0.0.1\0"]);
}

#[test]
fn whatever_is_unusual_is_no_answer_and_keeps_nobody_else_from_one() {
    let sha256 = format!("{ONE}{TWO}");
    let odd = [
        String::new(),
        "0000".to_owned(),
        packet("ERR access denied or repository not exported: /a"),
        packet("version 1\n") + &usual(),
        packet(&format!("{} capabilities^{{}}\0agent=git/2\n", "0".repeat(40))) + "0000",
        packet(&format!("{} HEAD\0agent=git/2\n", &sha256[..64])) + "0000",
        packet(&format!("{ONE} HEAD\0agent=git/2\n")),
        usual()[..usual().len() - 1].to_owned(),
        "nonsense".to_owned(),
        "00010000".to_owned(),
        "+0100000".to_owned(),
    ];
    for odd in odd {
        let (port, _asked) = server(vec![vec![odd.clone()]]);
        let (usual_port, _asked) = server(vec![vec![usual()]]);
        let found = survey(&[call(port, "/a", &[None]), call(usual_port, "/b", &[None])]);
        assert_eq!(found, [None, Some(vec![at(ONE, "main", true)])], "{odd:?}");
    }
}

#[test]
fn nobody_there_is_no_answer() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(survey(&[call(port, "/a", &[None])]), [None]);
}

#[test]
fn another_address_of_a_host_is_tried() {
    let (port, asked) = server(vec![vec![usual()]]);
    let dead: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let mut known = BTreeMap::from([(("127.0.0.1".to_owned(), port), vec![dead, ([127, 0, 0, 1], port).into()])]);
    let mut talk = Talk::begin(&call(port, "/a", &[None]), &mut known).unwrap();
    let (until, mut buffer) = (Instant::now() + PATIENCE, vec![0; READ]);
    let mut talks = vec![(0, talk)];
    loop {
        assert!(wait(&talks, until).is_some());
        talk = talks.pop().unwrap().1;
        match talk.go_on(&mut buffer) {
            Step::Waits => talks.push((0, talk)),
            Step::Answered => break,
            Step::Failed => panic!("failed"),
        }
    }
    drop(talk);
    assert_eq!(asked.join().unwrap().len(), 1);
}

/// One at which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn only_plain_addresses_are_surveyed() {
    for (url, place) in [
        ("git://host/a.git", Some(("host", 9418, "/a.git"))),
        ("git://host:99/a/b", Some(("host", 99, "/a/b"))),
        ("git://host/~user/a", None),
        ("git://host/a%20b", None),
        ("git://host/a b", None),
        ("git://user@host/a", None),
        ("git://[::1]/a", None),
        ("git://host", None),
        ("git://host/", None),
        ("https://host/a", None),
        ("host:a", None),
        ("/a", None),
    ] {
        let found = GitUrl::new(url).plain_place().map(|place| (place.host, place.port, place.path));
        let place = place.map(|(host, port, path)| (host.to_owned(), port, path.to_owned()));
        assert_eq!(found, place, "{url}");
    }
}

#[test]
fn more_than_are_spoken_to_at_once_are_all_asked() {
    let count = 3 * TALKS_MAX - 1;
    let (port, asked) = server(vec![vec![usual()]; count]);
    let calls: Vec<_> = (0..count).map(|number| call(port, &format!("/{number}"), &[None])).collect();
    assert_eq!(survey(&calls), vec![Some(vec![at(ONE, "main", true)]); count]);
    assert_eq!(asked.join().unwrap().len(), count);
}
