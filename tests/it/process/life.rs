//! A program's life: what it may say of itself, who it runs as, where it listens, how it is.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::load::ask_once;
use super::{drop_version, edit, kill_all, processes, sandbox, wait_for_processes};
use crate::daemon::Daemon;

#[test]
fn its_health_is_told_in_its_interval() {
    let (sandbox, _) = sandbox("health_interval = \"50ms\"");
    sandbox.log_debug();
    drop_version(&sandbox, "v0 fork");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let number = |text: &serde_json::Value| text.to_string().trim_matches('"').parse::<f64>().expect("a number");
    let health = daemon.wait_for(|line| line.message == "instance health" && number(&line.fields["processes"]) == 2.0);
    assert_eq!(health.field("pickup"), "web");
    assert!(number(&health.fields["memory"]) > 100_000.0, "{health:?}");
    assert!(number(&health.fields["load"]) >= 0.0, "{health:?}");
    daemon.stop();
}

/// The first process ends; what it named is asked to finish, and missed when it ends by itself.
#[test]
fn a_program_may_name_another_process_as_the_one_that_counts() {
    let (sandbox, address) = sandbox("");
    drop_version(&sandbox, "v0 leave");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    wait_for_processes(&sandbox, 1);
    let main = processes(&sandbox);
    assert_eq!(ask_once(address).expect("an answer"), "v0");
    kill_all(&sandbox);
    let ended = daemon.wait_for(|line| line.message == "instance ended by itself");
    assert_eq!(ended.fields["pid"], main[0], "{ended:?}");
    daemon.wait_until("a second start", |log| {
        log.lines.iter().filter(|line| line.message == "instance activated").count() == 2
    });
    wait_for_processes(&sandbox, 1);
    let main = processes(&sandbox);
    drop_version(&sandbox, "v1");
    daemon.wait_deployed("version", 2);
    let stopped = daemon.wait_for(|line| line.message == "instance stopped");
    assert_eq!(stopped.fields["pid"], main[0], "{stopped:?}");
    assert_eq!(ask_once(address).expect("an answer"), "v1");
    daemon.stop();
}

/// Asks once over the socket at `path`.
fn ask_at(path: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).filter(|body| !body.is_empty());
    body.ok_or_else(|| std::io::Error::other(format!("unexpected answer {answer:?}")))
}

/// Redeploys, and ends the daemon in the middle, while somebody asks over a socket.
fn over_a_socket(keys: &str) {
    let (sandbox, address) = sandbox(keys);
    let socket = sandbox.path("web.sock");
    edit(&sandbox, &format!("\"{address}\""), &format!("\"unix:{}\"", socket.display()));
    drop_version(&sandbox, "v0");
    let mut daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (socket, is_over) = (socket.clone(), is_over.clone());
        move || {
            while !is_over.load(Ordering::Relaxed) {
                ask_at(&socket).expect("an answer");
            }
        }
    });
    for at in 1..=3 {
        drop_version(&sandbox, &format!("v{at}"));
        daemon.wait_deployed("version", at + 1);
    }
    // What we carry ends with us.
    let is_carried = keys.contains("carried");
    if !is_carried {
        daemon.kill();
        daemon = sandbox.daemon();
        daemon.wait_for(|line| line.message == "found running");
        drop_version(&sandbox, "v4");
        daemon.wait_deployed("version", 1);
    }
    is_over.store(true, Ordering::Relaxed);
    asking.join().expect("every request is answered");
    assert_eq!(ask_at(&socket).expect("an answer"), if is_carried { "v3" } else { "v4" });
    daemon.stop();
    assert!(!socket.exists(), "nobody listens there any more");
}

#[test]
fn a_socket_in_the_file_system_is_handed_over_like_a_port() {
    over_a_socket("");
}

#[test]
fn connections_of_a_socket_are_carried_to_a_port() {
    over_a_socket("carried = true");
}

/// As another user with limits of its own: root may do that, and who is not root is told that it cannot.
#[test]
fn a_program_runs_as_its_user_within_its_limits() {
    use std::os::unix::fs::PermissionsExt;
    let (sandbox, _) = sandbox("user = \"65534:65533\"\nlimits = { nofile = 77 }\ninto = \"programs\"");
    let text = sandbox.read("pickup.conf").expect("a configuration");
    let command = text.lines().find(|line| line.starts_with("command")).expect("a command");
    let script = "echo I am $(id -u):$(id -g) with $(ulimit -n):$(ulimit -Hn) at $PWD; exec sleep 1000";
    edit(&sandbox, command, &format!("command = [\"sh\", \"-c\", \"{script}\"]"));
    edit(&sandbox, "ready = \"notify\"", "ready = \"line:I am 65534:65533 with 77:77 at \"");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sandbox.path(""), mode).expect("let others in");
    drop_version(&sandbox, "v0");
    let daemon: Daemon = sandbox.daemon();
    if rustix::process::geteuid().is_root() {
        daemon.wait_deployed("version", 1);
        assert_eq!(processes(&sandbox).len(), 1);
    } else {
        let failed = daemon.wait_for(|line| line.message.starts_with("failed"));
        assert!(failed.field("cause").contains("change the user"), "{failed:?}");
    }
    daemon.stop();
}
