#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kobune_puller::hostile::delta(data));
