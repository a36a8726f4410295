//! A clone goes forward, or stays as it is.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;
use crate::source::git::worker::FailureKind;
use crate::source::git::worker::intent::{Intent, Move};

/// A clone at the first of two commits; the second changes, adds and removes a file.
struct Scene {
    world: World,
    first: String,
    second: String,
    clone: Repository,
}

impl Scene {
    fn new() -> Self {
        let (world, _) = World::with_a_commit();
        let first = world.commit("main", &[("long.txt", Some("old\n")), ("gone.txt", Some("gone\n"))]);
        world.check(Shape::Clone, &world.path("clone"), &[None]).unwrap();
        let long = format!("{}\n", "new line\n".repeat(100));
        let second =
            world.commit("main", &[("long.txt", Some(&long)), ("new/n.txt", Some("new\n")), ("gone.txt", None)]);
        world.check(Shape::Clone, &world.path("clone"), &[None]).unwrap();
        let clone = Repository::open(world.path("clone")).unwrap();
        Self { world, first, second, clone }
    }

    fn advance(&self) -> Result<(), Failure> {
        self.advance_to(&self.second)
    }

    fn advance_to(&self, to: &str) -> Result<(), Failure> {
        ask(&Request::Advance { repository: self.world.path("clone"), to: to.to_owned() }).map(drop)
    }

    fn write(&self, path: &str, content: &str) {
        let place = self.world.path("clone").join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.world.path("clone").join(path)).ok()
    }

    fn head(&self) -> String {
        self.clone.head().unwrap().target().unwrap().to_string()
    }

    /// Everything is as the second commit has it.
    fn assert_advanced(&self) {
        assert_eq!(self.head(), self.second);
        assert!(self.read("long.txt").unwrap().starts_with("new line\n"));
        assert_eq!(self.read("new/n.txt").as_deref(), Some("new\n"));
        assert_eq!(self.read("gone.txt"), None);
        let clone = Repository::open(self.world.path("clone")).unwrap();
        let statuses = clone.statuses(None).unwrap();
        assert!(
            statuses.is_empty(),
            "{:?}",
            statuses.iter().map(|s| (s.path().unwrap().to_owned(), s.status())).collect::<Vec<_>>()
        );
        assert_eq!(clone.head().unwrap().name().unwrap(), "refs/heads/main");
    }

    /// It is refused, `words` are said, and nothing has moved.
    fn assert_refused(&self, words: &str) {
        let failure = self.advance().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
        assert_eq!(self.head(), self.first);
    }

    /// As if a worker had been killed in a checkout.
    fn die_in_checkout(&self) {
        let mut intent = Intent::declare(&self.clone).unwrap();
        intent.set_moving(Some(Move { from: self.first.clone(), to: self.second.clone() })).unwrap();
    }
}

#[test]
fn a_clean_clone_goes_forward() {
    let scene = Scene::new();
    scene.write("untracked", "stays");
    scene.advance().unwrap();
    assert_eq!(scene.read("untracked").as_deref(), Some("stays"));
    fs::remove_file(scene.world.path("clone/untracked")).unwrap();
    scene.assert_advanced();
    scene.advance().unwrap();
    scene.assert_advanced();
}

#[test]
fn edits_are_not_overwritten() {
    for path in ["long.txt", "a.txt", "gone.txt"] {
        let scene = Scene::new();
        scene.write(path, "mine");
        scene.assert_refused(&format!("edited there: {path};"));
        assert_eq!(scene.read(path).as_deref(), Some("mine"));
    }
    let scene = Scene::new();
    fs::remove_file(scene.world.path("clone/a.txt")).unwrap();
    scene.assert_refused("a.txt");
    let scene = Scene::new();
    scene.write("staged", "staged");
    let mut index = scene.clone.index().unwrap();
    index.add_path(Path::new("staged")).unwrap();
    index.write().unwrap();
    scene.assert_refused("staged");
}

#[test]
fn files_in_the_way_are_not_overwritten() {
    for ignored in [false, true] {
        let scene = Scene::new();
        if ignored {
            fs::write(scene.clone.path().join("info/exclude"), "n.txt\n")
                .or_else(|_| {
                    fs::create_dir_all(scene.clone.path().join("info"))?;
                    fs::write(scene.clone.path().join("info/exclude"), "n.txt\n")
                })
                .unwrap();
        }
        scene.write("new/n.txt", "mine");
        scene.assert_refused("in the way: new/n.txt");
        assert_eq!(scene.read("new/n.txt").as_deref(), Some("mine"));
        assert_eq!(scene.read("long.txt").as_deref(), Some("old\n"));
        fs::remove_dir_all(scene.world.path("clone/new")).unwrap();
        scene.advance().unwrap();
        scene.assert_advanced();
    }
}

#[test]
fn commits_of_its_own_are_kept() {
    let scene = Scene::new();
    let parent = scene.clone.head().unwrap().peel_to_commit().unwrap();
    let tree = parent.tree().unwrap();
    let own = scene.clone.commit(Some("HEAD"), &who(), &who(), "mine", &tree, &[&parent]).unwrap();
    let failure = scene.advance().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("the branch has 1 commit of its own"), "{failure:?}");
    assert_eq!(scene.head(), own.to_string());
}

#[test]
fn a_clone_in_the_middle_of_something_is_left_alone() {
    let scene = Scene::new();
    fs::write(scene.clone.path().join("MERGE_HEAD"), format!("{}\n", scene.second)).unwrap();
    scene.assert_refused("a merge is in progress");
    fs::remove_file(scene.clone.path().join("MERGE_HEAD")).unwrap();
    scene.clone.set_head_detached(Oid::from_str(&scene.first).unwrap()).unwrap();
    scene.assert_refused("its HEAD is on no branch");
}

#[test]
fn filters_are_not_passed_over_in_silence() {
    let scene = Scene::new();
    scene.write(".git/info/attributes", "*.txt filter=lfs\n");
    let failure = scene.advance().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert!(failure.message.contains("goes through the filter `lfs`"), "{failure:?}");
}

#[test]
fn a_torn_checkout_is_finished() {
    type Torn = fn(&Scene);
    let torn: [(&str, Torn); 5] = [
        ("nothing was written", |_| {}),
        ("a file was made and is empty", |scene| scene.write("long.txt", "")),
        ("a file is half there", |scene| scene.write("long.txt", "new line\nnew l")),
        ("some files are there", |scene| {
            scene.write("new/n.txt", "new\n");
            fs::remove_file(scene.world.path("clone/gone.txt")).unwrap();
        }),
        ("all is there but the branch", |scene| {
            let tree = scene.clone.find_object(Oid::from_str(&scene.second).unwrap(), None).unwrap();
            scene.clone.checkout_tree(&tree, None).unwrap();
        }),
    ];
    for (name, tear) in torn {
        let scene = Scene::new();
        scene.die_in_checkout();
        tear(&scene);
        // A check in between changes nothing about it.
        scene.world.check(Shape::Clone, &scene.world.path("clone"), &[None]).unwrap();
        scene.advance().unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        scene.assert_advanced();
    }
}

#[test]
fn an_edit_after_a_torn_checkout_is_kept() {
    for (path, content) in [("long.txt", "mine"), ("new/n.txt", "mine"), ("gone.txt", "mine"), ("a.txt", "mine")] {
        let scene = Scene::new();
        scene.die_in_checkout();
        scene.write("long.txt", "new line\nnew l");
        scene.write(path, content);
        scene.assert_refused(path);
        assert_eq!(scene.read(path).as_deref(), Some(content));
        // It stays so, until the edit is taken back.
        scene.assert_refused(path);
        scene.clone.checkout_head(Some(git2::build::CheckoutBuilder::new().force().path(path))).unwrap();
        if path == "new/n.txt" {
            fs::remove_file(scene.world.path("clone/new/n.txt")).unwrap();
        }
        scene.advance().unwrap();
        scene.assert_advanced();
    }
}

#[test]
fn locks_of_a_dead_worker_are_removed_and_others_stay() {
    let locks = ["index.lock", "HEAD.lock", "refs/heads/main.lock", "packed-refs.lock"];
    let scene = Scene::new();
    scene.die_in_checkout();
    for name in locks {
        fs::write(scene.clone.path().join(name), "").unwrap();
    }
    scene.advance().unwrap();
    scene.assert_advanced();
    assert!(locks.iter().all(|name| !scene.clone.path().join(name).exists()));

    // Nobody of ours died here.
    let scene = Scene::new();
    let lock = scene.clone.path().join("index.lock");
    fs::write(&lock, "").unwrap();
    let failure = scene.advance().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Busy);
    assert!(failure.message.contains(lock.to_str().unwrap()), "{failure:?}");
    assert!(lock.exists());

    // It was there before ours died.
    let scene = Scene::new();
    let lock = scene.clone.path().join("index.lock");
    let file = fs::File::create(&lock).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    drop(file);
    scene.die_in_checkout();
    assert_eq!(scene.advance().unwrap_err().kind, FailureKind::Busy);
    assert!(lock.exists());

    // Somebody has it open.
    let scene = Scene::new();
    let lock = scene.clone.path().join("index.lock");
    scene.die_in_checkout();
    let held = fs::File::create(&lock).unwrap();
    assert_eq!(scene.advance().unwrap_err().kind, FailureKind::Busy);
    assert!(lock.exists());
    drop(held);
    scene.advance().unwrap();
    scene.assert_advanced();
}
