#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreshadow_mirror::attack::packets(bytes));
