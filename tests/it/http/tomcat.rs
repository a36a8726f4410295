//! Tomcat's manager: a WAR in the pickup directory answers requests, is replaced, and is undeployed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{FAILED, why};
use crate::sandbox::Sandbox;

const CATALINA_HOME: &str = "/usr/share/tomcat10";
const MANAGER: &str = "/usr/share/tomcat10-admin/manager";
const PASSWORD: &str = "pass-of-the-test";

/// A slow machine takes its time to start a virtual machine.
const CAP: Duration = Duration::from_secs(120);

/// Tomcat from Debian's packages, with a directory and a port of its own.
struct Tomcat {
    child: Child,
    port: u16,
}

impl Tomcat {
    /// Starts it in `base`, and waits until it serves.
    fn start(base: &Path) -> Self {
        assert!(
            Path::new(CATALINA_HOME).is_dir() && Path::new(MANAGER).is_dir(),
            "tomcat10 and tomcat10-admin: see ./test"
        );
        for directory in ["conf", "logs", "temp", "webapps", "work"] {
            fs::create_dir_all(base.join(directory)).expect("make a directory");
        }
        fs::write(base.join("conf/server.xml"), SERVER).expect("write server.xml");
        let user = format!(
            "<tomcat-users><user username='pickup' password='{PASSWORD}' roles='manager-script'/></tomcat-users>"
        );
        fs::write(base.join("conf/tomcat-users.xml"), user).expect("write tomcat-users.xml");
        fs::copy(Path::new(CATALINA_HOME).join("etc/web.xml"), base.join("conf/web.xml")).expect("copy web.xml");
        let mut command = Command::new(Path::new(CATALINA_HOME).join("bin/catalina.sh"));
        command.arg("run").env("CATALINA_HOME", CATALINA_HOME).env("CATALINA_BASE", base).env("JAVA_OPTS", "-Xmx256m");
        // Its process group is ours to end, whatever the script starts.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start Tomcat");
        let mut lines = BufReader::new(child.stderr.take().expect("its output"));
        let mut tomcat = Self { child, port: 0 };
        let mut said = String::new();
        while !said.contains("Server startup in") {
            let read = lines.read_line(&mut said).expect("read what Tomcat says");
            assert!(read > 0, "Tomcat ended: {said}");
        }
        // It says so as ["http-nio-127.0.0.1-auto-1-41234"].
        let name = said.lines().rfind(|line| line.contains("Starting ProtocolHandler")).expect("a port");
        let port = name.rsplit('-').next().and_then(|rest| rest.split('"').next()).and_then(|port| port.parse().ok());
        tomcat.port = port.unwrap_or_else(|| panic!("a port in {name}"));
        // Nobody reads it any more, and it must not wait for that.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        tomcat
    }

    /// The status and the body of an answer.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("connect to Tomcat");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("ask");
        stream.shutdown(Shutdown::Write).expect("end a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }
}

impl Drop for Tomcat {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Nothing but the manager, on any free port of loopback.
const SERVER: &str = r#"<?xml version="1.0"?>
<Server port="-1">
  <GlobalNamingResources>
    <Resource name="users" auth="Container" type="org.apache.catalina.UserDatabase" readonly="true"
              factory="org.apache.catalina.users.MemoryUserDatabaseFactory" pathname="conf/tomcat-users.xml"/>
  </GlobalNamingResources>
  <Service name="Catalina">
    <Connector port="0" address="127.0.0.1" protocol="HTTP/1.1"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Realm className="org.apache.catalina.realm.UserDatabaseRealm" resourceName="users"/>
      <Host name="localhost" appBase="webapps" unpackWARs="true" autoDeploy="false">
        <Context path="/manager" docBase="/usr/share/tomcat10-admin/manager" privileged="true"/>
      </Host>
    </Engine>
  </Service>
</Server>
"#;

/// A WAR with one page, made without any program.
fn war(page: &str) -> Vec<u8> {
    stored_zip(&[
        ("WEB-INF/web.xml", "<web-app xmlns='https://jakarta.ee/xml/ns/jakartaee' version='5.0'/>"),
        ("index.html", page),
    ])
}

/// A zip file in which nothing is compressed (APPNOTE.TXT §4.3).
fn stored_zip(files: &[(&str, &str)]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let offset = zip.len() as u32;
        let mut common = Vec::new();
        // Version 2.0, no flags, stored; 1 January 2026.
        for word in [20_u16, 0, 0, 0, (46 << 9) | (1 << 5) | 1] {
            common.extend(word.to_le_bytes());
        }
        for word in [crc32(content.as_bytes()), content.len() as u32, content.len() as u32] {
            common.extend(word.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        zip.extend(*b"PK\x03\x04");
        zip.extend(&common);
        zip.extend(name.bytes().chain(content.bytes()));
        directory.extend(*b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (start, length, count) = (zip.len() as u32, directory.len() as u32, (files.len() as u16).to_le_bytes());
    zip.extend(directory);
    zip.extend(*b"PK\x05\x06\0\0\0\0");
    zip.extend([count, count].concat());
    zip.extend([length.to_le_bytes(), start.to_le_bytes()].concat());
    zip.extend([0; 2]);
    zip
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn config(port: u16) -> String {
    let manager = format!("http://127.0.0.1:{port}/manager/text");
    format!(
        r#"
[pickup]
log_format = "json"

[hot-deploy.user.webapps]
pickup_from = "in"
patterns = ["*.war"]
deploy_to = ["tomcat"]

[deployer.tomcat]
kind = "http"
url = "{manager}/deploy?path=/{{stem}}&update=true"
expect = ["OK - "]
remove_url = "{manager}/undeploy?path=/{{stem}}"
remove_method = "GET"
remove_expect = ["OK - ", "FAIL - No context exists"]
username = "pickup"
password_file = "password"
retry = 0
"#
    )
}

#[test]
fn a_war_answers_requests_is_replaced_and_undeployed() {
    let sandbox = Sandbox::new().file("password", PASSWORD);
    let tomcat = Tomcat::start(&sandbox.path("tomcat"));
    let sandbox = sandbox.config(&config(tomcat.port)).file("in/shop.war", war("first"));
    let daemon = sandbox.daemon();
    let deployed = |times: usize| {
        let is_there = |count: Option<&usize>| count.is_some_and(|count| *count >= times);
        daemon.wait_within(CAP, "a deployed WAR", |log| is_there(log.deployed.get("shop.war")));
    };
    deployed(1);
    assert_eq!(tomcat.get("/shop/"), (200, "first".to_owned()));
    sandbox.write("beside", war("second"));
    sandbox.rename("beside", "in/shop.war");
    deployed(2);
    assert_eq!(tomcat.get("/shop/"), (200, "second".to_owned()));

    // A zip, so it is whole for us; but no application.
    sandbox.write("beside", stored_zip(&[("WEB-INF/web.xml", "<web-app><servlet/>")]));
    sandbox.rename("beside", "in/shop.war");
    daemon.wait_within(CAP, "a failure", |log| {
        log.lines.iter().any(|line| line.message == FAILED && line.field("units") == "shop.war")
    });
    assert!(why(&sandbox, "in/shop.war").contains("FAIL - "), "{}", why(&sandbox, "in/shop.war"));
    assert_eq!(tomcat.get("/shop/"), (200, "second".to_owned()), "the version before is sent again");

    sandbox.remove("in/shop.war");
    daemon.wait_within(CAP, "a removal", |log| log.removed.contains_key("shop.war"));
    assert_eq!(tomcat.get("/shop/").0, 404);
    assert!(!daemon.stop().contains(PASSWORD));
}
