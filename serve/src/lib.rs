//! The control API of a running controller, over a Unix socket.
