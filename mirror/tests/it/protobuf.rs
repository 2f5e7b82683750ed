//! As much of protobuf as it takes to write a message by hand.

fn varint(mut n: usize, to: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(n & 0x7f).unwrap();
        n >>= 7;
        to.push(if n == 0 { low } else { low | 0x80 });
        if n == 0 {
            return;
        }
    }
}

/// A field with a length: a text, bytes, a message.
pub(crate) fn bytes(number: usize, value: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    varint(number << 3 | 2, &mut field);
    varint(value.len(), &mut field);
    field.extend(value);
    field
}

pub(crate) fn text(number: usize, value: &str) -> Vec<u8> {
    bytes(number, value.as_bytes())
}

/// A message as gRPC sends it: whether it is packed, its length, and itself.
pub(crate) fn framed(message: &[u8], is_packed: bool) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[u8::from(is_packed)], &length.to_be_bytes()[..], message].concat()
}
