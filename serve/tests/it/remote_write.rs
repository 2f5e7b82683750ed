//! Remote write: a target that is away, refuses, and takes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use foreshadow_serve::{RemoteTarget, RemoteWorld, Remotes, write_remotely};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::common::Stage;

/// Answers each request with the next of these, then with 204; keeps what was asked.
async fn receiver(listener: TcpListener, answers: &[&str], seen: Arc<Mutex<Vec<String>>>) {
    let mut answers = answers.iter();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let length = |request: &[u8]| {
            let text = String::from_utf8_lossy(request);
            let head = text.find("\r\n\r\n")?;
            let body =
                text.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
            Some(head + 4 + body)
        };
        while length(&request).is_none_or(|wanted| request.len() < wanted) {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            if n == 0 {
                break;
            }
            request.extend(&part[..n]);
        }
        seen.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
        let status = answers.next().copied().unwrap_or("204 No Content");
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_refused_is_dropped_what_fails_is_tried_again_and_the_cursor_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v1/write", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    // The first moment fails once, the second is refused, as a batch and then alone.
    let answers = ["503 Service Unavailable", "204 No Content", "400 Bad Request", "400 Bad Request"];
    let stage = Stage::new();
    let world = RemoteWorld { records: stage.readings.records, service: "shop".into(), unix_ms: || 5000 };
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = {
        let kept = kept.clone();
        Box::new(move |cursor| {
            kept.lock().unwrap().push(cursor);
            true
        })
    };
    let target = RemoteTarget { url, token_file: Some(token), batch: 100, cursor: 0, keep };
    let remotes = Remotes::new(1);
    let cancel = CancellationToken::new();
    let all_written = async {
        while kept.lock().unwrap().last() != Some(&5000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        written = write_remotely((0, target), world, remotes.clone(), cancel) => panic!("ended: {written:?}"),
        () = receiver(listener, &answers, seen.clone()) => {}
        () = all_written => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("{:?}", kept.lock().unwrap()),
    }
    assert_eq!(*kept.lock().unwrap(), [1000, 2000, 3000, 4000, 5000], "each moment once, in order");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 7, "five moments, one twice, one refused twice");
    for head in [
        "content-encoding: snappy",
        "authorization: Bearer hunter2",
        "x-prometheus-remote-write-version: 0.1.0",
    ] {
        assert!(seen.iter().all(|request| request.to_lowercase().contains(&head.to_lowercase())), "{head}");
    }
    let troubles = remotes.troubles(6000).join("\n");
    assert!(
        troubles.contains("target 1 refused samples, 1 in all") && !troubles.contains("127.0.0.1"),
        "{troubles}"
    );
}
