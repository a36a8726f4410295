//! What holds for any text, and for any configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::surroundings;

fn check(text: &str) -> Result<(), TestCaseError> {
    let Ok(config) = Config::parse(text, None, &surroundings()) else { return Ok(()) };
    prop_assert!(config.problems.len() <= 201);
    prop_assert!(config.pickups.keys().all(|name| !config.broken_pickups().contains(name.as_str())));
    let again = Config::parse(&config.to_toml(), None, &surroundings());
    let again = again.map_err(|problems| TestCaseError::fail(format!("{}\n{problems:?}", config.to_toml())))?;
    prop_assert_eq!(bare(again), bare(config));
    Ok(())
}

/// What of a configuration survives being written.
fn bare(config: Config) -> Config {
    Config { problems: Vec::new(), dialect: Dialect::Toml, ..config }
}

/// Lines that look like configuration, in both dialects, right and wrong.
fn line() -> impl Strategy<Value = String> {
    let words = "pickup_from|git_url|git_ref|git_depth|auto_checkout|patterns|into|kind|command|deploy_to|quiet|env|verify|x|mode|\"k\"|state_dir|a\\.b";
    let values = "h:x|\"https://h/x\"|\"/x\"|main|\"[^\n]{0,8}\"|/[a-z]{0,3}|\\$DIR|\\[\"[a-z*]\"\\]|copy|\"copy\"|1s|\"exec\"|true|True|a, b|'''|\"\"\"|0o644|\\{ a = 1 \\}";
    prop_oneof![
        "(\\[{1,2} ?)(hot-deploy\\.user\\.[a-c. ]{1,3}|deployer\\.[ab]|pickup|csv|hot-deploy)( ?\\]{0,2})",
        (words, " ?[=:]? ?", values).prop_map(|(key, equals, value)| format!("{key}{equals}{value}")),
        "[ -~\t]{0,12}",
        "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn no_text_that_looks_like_configuration_panics(lines in prop::collection::vec(line(), 0..14)) {
        check(&lines.join("\n"))?;
        check(&lines.join("\r\n"))?;
        check(&format!("[hot-deploy.user.my code]\nenabled=True\npickup_from=/x\n{}", lines.join("\n")))?;
        check(&format!("[hot-deploy.user.a]\npickup_from = [\"/in\"]\n{}", lines.join("\n")))?;
    }

    #[test]
    fn what_is_written_as_toml_reads_back_equal(config in config()) {
        let text = config.to_toml();
        let again = Config::parse(&text, None, &Surroundings::new("/elsewhere")).map_err(|problems| {
            TestCaseError::fail(format!("{text}\n{problems:?}"))
        })?;
        prop_assert!(!again.has_errors(), "{}\n{}", text, super::listed(&again.problems));
        prop_assert_eq!(bare(again), config, "{}", text);
    }
}

#[test]
fn brackets_and_dots_without_end_cost_no_stack() {
    let deep = 100_000;
    for text in [
        format!("a = {}", "[".repeat(deep)),
        format!("a = {}", "{a=".repeat(deep)),
        format!("[{}]", "a.".repeat(deep)),
        format!("{}a = 1", "a.".repeat(deep)),
        format!("{}\n", "\"\".".repeat(deep)),
        format!("a = \"\"\"x\"\"\"\"\n{}a = 1", "a.".repeat(deep)),
        format!("a = \"\\\n{}a = 1", "a.".repeat(deep)),
        "[".repeat(deep),
        "'''\n".repeat(deep),
        "a=\"\"\"x\n".repeat(deep),
        "[a\n".repeat(deep),
    ] {
        let _ = Config::parse(&text, None, &surroundings());
        let _ = Config::parse(&format!("[hot-deploy.user.my code]\nenabled=True\n{text}"), None, &surroundings());
    }
}

fn span() -> impl Strategy<Value = Duration> {
    (1_u64..4_000_000_000_000, prop::sample::select(vec![1_u64, 1_000, 1_000_000, 60_000_000]))
        .prop_map(|(count, unit)| Duration::from_nanos((count / unit).max(1) * unit))
}

/// A path below `below`, of any characters that a path may hold.
fn path(below: &'static str) -> impl Strategy<Value = PathBuf> {
    r#"[a-z $'"~#é\\,]{1,6}(/[a-z.]{3,5})?"#.prop_map(move |rest| PathBuf::from(format!("{below}/{rest}")))
}

fn texts(pattern: &'static str, least: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(pattern, least..3)
}

fn verify_check() -> impl Strategy<Value = VerifyCheck> {
    prop_oneof![
        "[a-z]{1,5}:[1-9][0-9]{0,3}".prop_map(VerifyCheck::Tcp),
        "http://[a-z]{1,5}(:[1-9][0-9])?/[a-z?=]{0,5}".prop_map(VerifyCheck::Http),
        ("[a-z/ '\"]{1,6}", texts("[ -~é\n]{0,6}", 0))
            .prop_map(|(program, rest)| VerifyCheck::Exec([vec![program], rest].concat())),
    ]
}

fn ready() -> impl Strategy<Value = Ready> {
    prop_oneof![
        Just(Ready::Notify),
        verify_check().prop_map(Ready::Check),
        "[ -~é]{0,6}[a-z]".prop_map(Ready::Line),
        span().prop_map(Ready::After),
    ]
}

fn process(name: &str) -> impl Strategy<Value = ProcessConfig> + use<> {
    let (into, socket) = (format!("/out/{name}/{{pickup}}"), format!("/run/{name} {{pickup}}/"));
    let command = ("[a-z/ ]{1,4}[a-z]", texts("[ -~é\t]{0,6}", 0));
    let listen = prop::collection::btree_map("[a-zA-Z_.-]{1,5}", "[a-z é$]{0,3}", 0..3);
    let env = prop::collection::btree_map("[A-Za-z_. ]{1,5}", "[ -~\n]{0,6}", 0..3);
    let limit = prop::sample::select(process::LIMITS.to_vec()).prop_map(|(_, limit)| limit);
    let limits = prop::collection::btree_map(limit, any::<u64>(), 0..3);
    let user = prop::option::of("[a-z]{1,3}(:[a-z]{1,3})?");
    let signal = prop::sample::select(process::SIGNALS.to_vec()).prop_map(|(_, signal)| signal);
    let spans = (span(), span(), span(), prop::option::of(span()), span());
    let flags = (any::<bool>(), any::<bool>(), 0_u32..1000);
    (command, listen, env, limits, user, signal, ready(), spans, flags).prop_map(
        move |((program, arguments), listen, env, limits, user, drain_signal, ready, spans, flags)| ProcessConfig {
            command: [vec![program], arguments].concat(),
            into: Some(into.clone()),
            // A path of its own for each name, so that nothing conflicts.
            listen: (listen.into_iter())
                .map(|(name, at)| (name.clone(), ListenAddress::Unix(format!("{socket}{name}{at}"))))
                .collect(),
            ready,
            start_timeout: spans.0,
            probation: spans.1,
            drain_signal,
            drain_timeout: spans.2,
            overlap: flags.0,
            env,
            user,
            limits,
            restart_max: flags.2,
            watchdog: spans.3,
            health_interval: spans.4,
            keep_running: flags.1,
        },
    )
}

fn kind(name: String) -> impl Strategy<Value = DeployerKind> {
    // A directory of its own for each, so that nothing conflicts.
    let into = format!("/out/{name}/{{pickup}}");
    let copy =
        (prop::option::of(0_u32..0o7777), prop::option::of("[a-z]{1,3}(:[a-z]{1,3})?"), 0_usize..9, any::<bool>());
    let into_release = into.clone();
    let release = (1_usize..99, "[a-q]{1,5}", prop::collection::vec("[a-z]{1,3}/[a-z]{1,3}", 0..3), any::<bool>());
    let command =
        || ("[a-z/ ]{1,4}[a-z]", texts("[ -~é\t]{0,6}", 0)).prop_map(|(first, rest)| [vec![first], rest].concat());
    let env = prop::collection::btree_map("[A-Za-z_. ]{1,5}", "[ -~\n]{0,6}", 0..3);
    let exec = (command(), any::<bool>(), prop::option::of(command()), path("/cwd"), env, any::<bool>());
    let module =
        (prop::collection::vec("lib[a-z]{1,5}\\.so\\.[0-9]", 0..3), any::<bool>(), 1_usize..9999, "[ -~é\n]{0,9}");
    let address = "https?://[a-z]{1,9}(:[1-9][0-9]{0,3})?/[a-z]{9}";
    let http = (address, "[A-M]{5,9}", texts("[ -~é]{1,9}", 0), any::<bool>(), path("/secret"));
    prop_oneof![
        process(&name).prop_map(DeployerKind::Process),
        copy.prop_map(move |(mode, owner, strip, durable)| {
            DeployerKind::Copy(CopyConfig { into: into.clone(), mode, owner, strip, durable })
        }),
        release.prop_map(move |(keep, link, shared, durable)| {
            let shared = shared.into_iter().map(PathBuf::from).collect();
            DeployerKind::Release(ReleaseConfig { into: into_release.clone(), keep, link, shared, durable })
        }),
        exec.prop_map(|(command, per, rollback_command, cwd, env, stdin)| {
            DeployerKind::Exec(ExecConfig {
                command,
                per: if per { ExecPer::Unit } else { ExecPer::ChangeSet },
                rollback_command,
                cwd: Some(cwd),
                env,
                stdin: if stdin { ExecStdin::Json } else { ExecStdin::None },
            })
        }),
        module.prop_map(|(allow_needed, probe, max_generations, config)| {
            DeployerKind::Module(ModuleConfig { allow_needed, probe, max_generations, config })
        }),
        http.prop_map(|(url, remove_method, expect, has_token, secret)| {
            let bearer_file = has_token.then_some(secret);
            let remove_url = Some(format!("{url}?gone={{unit}}"));
            let headers = [("X-One".to_owned(), "a \"b\"".to_owned())].into();
            DeployerKind::Http(HttpConfig {
                remove_url,
                remove_method,
                expect,
                headers,
                bearer_file,
                ..HttpConfig::new(url)
            })
        }),
    ]
}

fn deployer(name: String) -> impl Strategy<Value = DeployerConfig> {
    let checks = prop::collection::vec(verify_check(), 0..3);
    let common = (span(), 0_u32..1000, span(), checks, span()).prop_map(
        |(timeout, retry, retry_backoff, verify, verify_timeout)| DeployerCommon {
            timeout,
            retry,
            retry_backoff,
            verify,
            verify_timeout,
        },
    );
    (kind(name.clone()), common).prop_map(move |(kind, mut common)| {
        if let DeployerKind::Process(process) = &kind {
            // A phase that may take longer than it is given would be refused.
            common.timeout = common.timeout.max(process.phase_max());
        }
        DeployerConfig { name: name.clone(), kind, common }
    })
}

fn pickup() -> impl Strategy<Value = PickupConfig> {
    let selection = (
        prop::collection::btree_set(path("/in"), 1..3),
        texts(r"\*\.[a-z ]{1,3}|[a-z]{1,3}/\*\*", 1),
        texts("!?[a-z*# /]{1,4}[a-z]", 0),
        texts("[a-z?]{1,4}", 0),
    );
    let timing = (span(), span(), span(), span(), span());
    let choices = (0_usize..3, 0_usize..4, 0_usize..2, 0_usize..3);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (selection, timing, choices, flags).prop_map(|(selection, timing, choices, flags)| PickupConfig {
        name: String::new(),
        pickup_from: selection.0.into_iter().collect(),
        patterns: selection.1,
        ignore: selection.2,
        settle_patterns: selection.3,
        recursive: flags.0,
        unit: entry::UNITS[choices.0].1,
        quiet: timing.0.min(timing.1),
        quiet_max: timing.0.max(timing.1),
        settle: timing.2,
        watch: entry::WATCHES[choices.1].1,
        poll_interval: timing.3,
        rescan_interval: timing.4,
        on_removed: entry::ON_REMOVED[choices.2].1,
        delete_after_pickup: flags.1,
        symlinks: entry::SYMLINKS[choices.3].1,
        git: None,
        deploy_to: Vec::new(),
        enabled: flags.2,
    })
}

fn url() -> impl Strategy<Value = GitUrl> {
    prop_oneof![
        "(https|http|ssh|git)://([a-z]{1,3}(:[a-z$]{1,3})?@)?[a-z]{1,5}(:[1-9][0-9]{0,3})?/[a-z~$#/]{0,5}[a-z]"
            .prop_map(GitUrl::new),
        "([a-z]{1,3}@)?[a-z]{1,5}:/?[a-z~$]{0,5}[a-z]".prop_map(GitUrl::new),
        path("/remote").prop_map(|path| GitUrl::new(path.to_string_lossy())),
        path("/remote").prop_map(|path| GitUrl::new(format!("file://{}", path.display()))),
    ]
}

fn git() -> impl Strategy<Value = GitConfig> {
    let repository = (
        prop::option::of(url()),
        prop::option::of("[a-zé]{1,4}(/[a-z@]{1,4})?|[0-9a-f]{40}"),
        prop::option::of(r#"[a-z][a-z $'"~#é]{0,3}(/[a-z]{1,3})?"#),
    );
    let check = (any::<bool>(), span(), span(), 0_u32..9, any::<bool>());
    let access = (
        prop::option::of("[a-z@ é]{0,4}[a-z]"),
        prop::option::of(path("/password")),
        prop::option::of(path("/key")),
        prop::option::of(path("/hosts")),
        prop::option::of(path("/ca")),
        prop::option::of("(http|https|socks5)://([a-z]{1,3}:[a-z]{1,3}@)?[a-z]{1,3}:[1-9][0-9]{0,3}"),
    );
    let allow =
        prop::collection::btree_set(prop::sample::select(git::ALLOWED.to_vec()).prop_map(|(_, allow)| allow), 0..3);
    (repository, check, access, (any::<bool>(), allow, 1_usize..10_000_000, 1_u64..1 << 40)).prop_map(
        |(repository, check, access, limits)| GitConfig {
            url: repository.0,
            reference: repository.1,
            subdir: repository.2.map(PathBuf::from),
            auto_checkout: check.0,
            auto_checkout_interval: check.1,
            timeout: check.2,
            depth: check.3,
            // A history cut short and a branch that only moves forward exclude each other.
            fast_forward_only: check.4 && check.3 == 0,
            transport: if limits.0 { GitTransport::Cli } else { GitTransport::Libgit2 },
            username: access.0,
            password_file: access.1,
            ssh_key: access.2,
            known_hosts: access.3,
            ca_file: access.4,
            proxy: access.5,
            allow: limits.1,
            files_max: limits.2,
            size_max: limits.3,
        },
    )
}

/// The same entry as a clone or, where there is an address, perhaps as a mirror.
fn with_git(mut pickup: PickupConfig, git: Option<GitConfig>, is_mirror: bool, name: &str) -> PickupConfig {
    let Some(git) = git else { return pickup };
    // A directory of its own for each, so that nothing conflicts.
    pickup.pickup_from = vec![PathBuf::from("/in/clone").join(name)];
    if is_mirror && git.url.is_some() {
        pickup.pickup_from.clear();
    }
    PickupConfig { git: Some(Box::new(git)), delete_after_pickup: false, ..pickup }
}

fn config() -> impl Strategy<Value = Config> {
    let name = || r#"[a-z "'é.-]{1,6}[a-z]|patterns\.x|x\.patterns|a\.b"#;
    let named = |names: std::collections::BTreeSet<String>| names.into_iter().map(deployer).collect::<Vec<_>>();
    let deployers = prop::collection::btree_set("[a-z .\"]{0,3}[a-z]", 1..4).prop_flat_map(named);
    let pickups = prop::collection::btree_map(
        name(),
        (pickup(), prop::option::of(git()), any::<bool>(), any::<prop::sample::Index>()),
        0..4,
    );
    let settings = (path("/state"), "[a-z=,]{1,8}", any::<bool>(), span(), 1_u64..i64::MAX as u64, 0_u32..60);
    (deployers, pickups, settings).prop_map(|(deployers, pickups, settings)| {
        let deployers: BTreeMap<_, _> =
            deployers.into_iter().map(|deployer| (deployer.name.clone(), deployer)).collect();
        let targets: Vec<_> = deployers.keys().cloned().collect();
        let pickups: BTreeMap<_, _> = pickups
            .into_iter()
            .map(|(name, (pickup, git, is_mirror, target))| {
                let mut pickup = with_git(pickup, git, is_mirror, &name);
                let deploy_to = vec![target.get(&targets).clone()];
                let is_module = matches!(deployers[&deploy_to[0]].kind, DeployerKind::Module(_));
                if is_module && pickup.unit == UnitKind::Tree {
                    // Refused: see `a_module_is_no_tree`.
                    pickup.unit = UnitKind::File;
                }
                (name.clone(), PickupConfig { name, deploy_to, ..pickup })
            })
            .collect();
        let (state_dir, log, is_text, keep_history, size, shift) = settings;
        let settings = Settings {
            state_dir,
            log,
            log_format: if is_text { LogFormat::Text } else { LogFormat::Json },
            keep_history,
            store_max: ((size >> shift) << shift).max(1),
        };
        Config { settings, pickups, deployers, ..Config::default() }
    })
}
