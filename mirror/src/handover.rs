//! The socket that users connect to, handed from one process to another.
//!
//! Controller and mirror both hold it, though only the mirror accepts from it. So whichever of them is killed, the
//! kernel goes on taking connections, and they wait until a mirror is there again. A new mirror inherits it as its
//! standard input, as services of `inetd` do: any other inherited descriptor could be inherited by an instance as well
//! that is started in the same moment. A controller that finds a running mirror gets it along with the greeting.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Sends `bytes`, the socket along with the first of them. Returns how many were sent.
pub(crate) async fn give(stream: &UnixStream, front: &TcpListener, bytes: &[u8]) -> io::Result<usize> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let sockets = [front.as_fd()];
        along.push(SendAncillaryMessage::ScmRights(&sockets));
        Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// Receives the first byte of a conversation, and the socket that came along with it; `None` from a mirror that gives
/// none. The byte is `None` at the end of the conversation.
///
/// # Errors
/// Those of the connection.
pub async fn take(stream: &UnixStream) -> io::Result<(Option<u8>, Option<TcpListener>)> {
    let receive = || {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut along, RecvFlags::CMSG_CLOEXEC)?;
        let sockets = along.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        let front = sockets.flatten().next().map(TcpListener::from);
        Ok(((0 < received.bytes).then_some(byte[0]), front))
    };
    stream.async_io(Interest::READABLE, receive).await
}

/// Takes the socket over that this process was started with as its standard input.
pub(crate) fn inherited() -> io::Result<TcpListener> {
    let input = io::stdin();
    if !rustix::net::sockopt::socket_acceptconn(&input)? {
        return Err(io::Error::other("standard input is no socket that takes connections"));
    }
    let front: OwnedFd = input.as_fd().try_clone_to_owned()?;
    // Else it stayed open while the mirror drains, and took connections that nobody accepts.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(front.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_given_takes_connections_after_its_giver_is_gone() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        assert_eq!(give(&ours, &front, b"hello").await.unwrap(), 5);
        drop((ours, front));
        let (first, taken) = take(&theirs).await.unwrap();
        let taken = taken.unwrap();
        assert_eq!((first, taken.local_addr().unwrap()), (Some(b'h'), address));
        assert!(TcpStream::connect(address).is_ok());
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ello");
        drop(taken);
        assert!(TcpStream::connect(address).is_err(), "nobody else holds it");
    }

    #[tokio::test]
    async fn a_mirror_without_a_socket_to_give_is_understood() {
        use tokio::io::AsyncWriteExt;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"{").await.unwrap();
        let (first, taken) = take(&theirs).await.unwrap();
        assert!(first == Some(b'{') && taken.is_none());
        drop(ours);
        assert_eq!(take(&theirs).await.unwrap().0, None);
    }
}
