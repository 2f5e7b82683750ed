//! Shadows that are in trouble, one way or another: what must do a live no harm.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::args::{Trouble, TroubleArgs};
use crate::exit::Exit;
use crate::failure::Failure;

/// How late a slow one answers.
const SLOW: Duration = Duration::from_secs(1);

/// How long a flapping one is there, and how long it is not.
const FLAP: Duration = Duration::from_millis(300);

/// An answer as it should be.
const WELL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nwell";

/// Says where it listens, and is in trouble until it is ended.
pub(crate) fn run(args: &TroubleArgs) -> Result<Exit, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    println!("{address}");
    match args.trouble {
        Trouble::Closed => drop(listener),
        Trouble::BlackHole => black_hole(&listener)?,
        Trouble::Flapping => flap(listener, address)?,
        trouble => serve(&listener, trouble),
    }
    loop {
        std::thread::park();
    }
}

fn serve(listener: &TcpListener, trouble: Trouble) {
    for stream in listener.incoming().map_while(Result::ok) {
        spawn(move || drop(answer(stream, trouble)));
    }
}

/// A queue of connections that is full: the kernel answers no more, as nobody does behind a firewall.
fn black_hole(listener: &TcpListener) -> io::Result<()> {
    rustix::net::listen(listener, 0)?;
    let address = listener.local_addr()?;
    for _ in 0..4 {
        spawn(move || {
            let held = TcpStream::connect(address);
            std::thread::park();
            drop(held);
        });
    }
    Ok(())
}

/// There, and not there, in turn.
fn flap(mut listener: TcpListener, address: SocketAddr) -> io::Result<()> {
    loop {
        listener.set_nonblocking(true)?;
        let mut there = Vec::new();
        for _ in 0..FLAP.as_millis() {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false)?;
                there.push(stream.try_clone()?);
                spawn(move || drop(answer(stream, Trouble::None)));
            }
            sleep(Duration::from_millis(1));
        }
        drop(listener);
        for stream in there.drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
        sleep(FLAP);
        listener = TcpListener::bind(address)?;
    }
}

/// Answers the requests of one connection.
fn answer(stream: TcpStream, trouble: Trouble) -> io::Result<()> {
    if trouble == Trouble::ReadsNothing || trouble == Trouble::TlsFails {
        if trouble == Trouble::TlsFails {
            (&stream).write_all(b"no TLS is spoken here\r\n")?;
        }
        std::thread::park();
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        match trouble {
            Trouble::Frozen => std::thread::park(),
            Trouble::Slow => {
                sleep(SLOW);
                writer.write_all(WELL)?;
            }
            Trouble::Resetting => {
                writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")?;
                rustix::net::sockopt::set_socket_linger(&writer, Some(Duration::ZERO))?;
                return Ok(());
            }
            Trouble::Garbage => writer.write_all(b"\0\xffSSH-2.0\r\n\r\n\x17\x03\x03 200 OK\r\n\r\n")?,
            Trouble::Endless => {
                writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                let mut chunk = b"10000\r\n".to_vec();
                chunk.resize(chunk.len() + 0x10000, b'x');
                chunk.extend(b"\r\n");
                loop {
                    writer.write_all(&chunk)?;
                }
            }
            _ => writer.write_all(WELL)?,
        }
    }
}
