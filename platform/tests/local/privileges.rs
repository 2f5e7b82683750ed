//! A shadow that runs as root cannot undo what shuts it in.

use std::time::Duration;

use foreshadow_model::OnExit;

use crate::world::{World, is_alive, sh};

#[tokio::test]
async fn root_within_a_shadow_cannot_get_out() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    let cgroup = shadow.cgroup.clone().unwrap().cpu.unwrap();
    let commands = [
        "mount -o remount,rw /".to_owned(),
        "mount -o remount,bind,rw /etc && echo x > /etc/x".into(),
        "umount /tmp".into(),
        "umount -l /run".into(),
        "umount -l /proc".into(),
        "mount -t tmpfs none /tmp".into(),
        "unshare -m true".into(),
        "nsenter -t 1 -m true".into(),
        "nsenter -t 1 -n true".into(),
        format!("nsenter --net={} true", world.settings.state.join("netns/shadow-1").display()),
        "unshare -Urm sh -c 'mount -o remount,bind,rw /etc && echo x > /etc/x'".into(),
        "unshare -Urm sh -c 'umount -l /run && ls /run/*'".into(),
        "mknod /tmp/disk b 259 0".into(),
        "mknod /tmp/mem c 1 1".into(),
        format!("echo 0 > {}/../../../cgroup.procs", cgroup.display()),
        format!("echo -1 > {}/cpu.cfs_quota_us || echo max > {0}/cpu.max", cgroup.display()),
        "echo 1 > /sys/kernel/profiling".into(),
        "echo 1 > /proc/sys/vm/drop_caches".into(),
        "echo x > /proc/sys/kernel/core_pattern".into(),
        "echo h > /proc/sysrq-trigger".into(),
        "ls /dev/vd* /dev/sd* /dev/nvme* /dev/mem /dev/kmsg 2>/dev/null | grep dev".into(),
        "ip link add dummy0 type dummy".into(),
        "ip addr add 10.9.8.7/24 dev lo".into(),
        "unshare -U --mount --cgroup sh -c 'mount -t cgroup -o cpu none /tmp && echo -1 > /tmp/cpu.cfs_quota_us'".into(),
        "unshare -U --mount --cgroup sh -c 'mount -t cgroup2 none /tmp && echo max > /tmp/cpu.max'".into(),
        "unshare -U --mount --cgroup sh -c 'mount -t cgroup2 none /tmp && echo 1 > /tmp/cgroup.procs'".into(),
        "unshare -U true".into(),
        "setpriv --reuid 65534 --clear-groups unshare -U true".into(),
        "chroot / true".into(),
        raw_mount("cgroup2", "None", "cgroup.procs"),
        raw_mount("cgroup", "b'cpu'", "cpu.cfs_quota_us"),
        "setpriv --reuid 65534 --clear-groups unshare -Urm sh -c 'umount -l /run || mount -o remount,bind,rw /etc'".into(),
        "date -s 2001-01-01".into(),
        "test $(nice -n -5 nice) -lt 0".into(),
    ];
    for command in commands {
        let answer = sh(&shadow, &command).await;
        assert_ne!(answer.code, 0, "`{command}` came through: {answer:?}");
    }
    let status = sh(&shadow, "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status").await.output;
    let masks: Vec<u64> = status.lines().filter(|line| line.starts_with("Cap")).map(hex).collect();
    for number in [2, 12, 13, 16, 17, 18, 19, 21, 22, 23, 25, 27, 38, 39, 40] {
        assert!(masks.iter().all(|mask| mask & (1 << number) == 0), "capability {number}: {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

/// Mounts a control group tree without asking `mount`, which wants to be root by number, and writes to a file of it.
fn raw_mount(kind: &str, data: &str, file: &str) -> String {
    format!(
        "/usr/bin/python3 -c \"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000 | 0x20000 | 0x02000000) == 0, ctypes.get_errno()
assert libc.mount(b'none', b'/tmp', b'{kind}', 0, {data}) == 0, ctypes.get_errno()
open('/tmp/{file}', 'w').write('0')\""
    )
}

fn hex(line: &str) -> u64 {
    u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap()
}

#[tokio::test]
async fn a_shadow_sees_no_process_but_its_own() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    let live = pair.live.pids[0];
    let seen = sh(&shadow, "ls /proc | grep -E '^[0-9]+$'").await.output;
    assert!(seen.lines().count() < 8, "{seen}");
    // A small number may be one of its own; the live's is not.
    assert!(100 < live);
    assert_ne!(sh(&shadow, &format!("kill -0 {live}")).await.code, 0);
    sh(&shadow, "setsid sh -c 'kill -9 -1' && sleep 0.2").await;
    assert!(is_alive(live), "the live outlives what its shadow kills");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn shared_memory_of_the_live_is_not_the_shadows() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    let made = sh(&pair.live, "ipcmk -M 4096").await;
    assert_eq!(made.code, 0, "{made:?}");
    let id = made.output.rsplit(' ').next().unwrap().trim().to_owned();
    assert_eq!(sh(&pair.live, &format!("ipcs -m -i {id} | grep -q bytes")).await.code, 0);
    assert_eq!(sh(&shadow, "ipcs -m | grep -c ^0x").await.output.trim(), "0");
    assert_eq!(sh(&pair.live, &format!("ipcrm -m {id}")).await.code, 0);
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}
