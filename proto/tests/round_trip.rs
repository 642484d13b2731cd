//! What is encoded is decoded to the same; what decodes is legal and encodes again.

mod common;

use common::{message, record};
use proptest::collection::vec;
use proptest::prelude::*;
use recsync_proto::codec::{
    self, FRAME_LEN_MAX, PREFIX_LEN, body_len, decode_record, encode_record,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn messages(message in message()) {
        let frame = codec::encode(&message).unwrap();
        let prefix = *frame.first_chunk().unwrap();
        prop_assert_eq!(body_len(prefix, FRAME_LEN_MAX), Ok(frame.len() - PREFIX_LEN));
        prop_assert_eq!(codec::decode(&frame[PREFIX_LEN..]), Ok(message));
    }

    #[test]
    fn records(record in record()) {
        prop_assert_eq!(decode_record(&encode_record(&record)), Ok(record));
    }

    #[test]
    fn a_damaged_frame_is_refused_or_another_legal_message(
        message in message(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = codec::encode(&message).unwrap().split_off(PREFIX_LEN);
        for (at, byte) in flips {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(other) = codec::decode(&body) {
            let again = codec::encode(&other).unwrap();
            prop_assert_eq!(codec::decode(&again[PREFIX_LEN..]), Ok(other));
        }
    }

    #[test]
    fn noise_is_refused_or_legal(body in vec(any::<u8>(), 0..300)) {
        if let Ok(message) = codec::decode(&body) {
            prop_assert!(codec::encode(&message).is_ok());
        }
        if let Ok(record) = decode_record(&body) {
            prop_assert!(record.is_sound());
        }
    }
}
