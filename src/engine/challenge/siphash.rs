//! SipHash-2-4, as specified by its authors (Aumasson and Bernstein, 2012): a keyed hash whose
//! results may be disclosed to an attacker.
//!
//! The hash of the engine's tables is faster, but its results are never sent.

/// A secret key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    k0: u64,
    k1: u64,
}

impl Key {
    pub(super) const fn new(k0: u64, k1: u64) -> Self {
        Self { k0, k1 }
    }

    /// Derives a key from a seed that is also used for other purposes.
    pub(super) fn derive([a, b, c, d]: [u64; 4]) -> Self {
        let seed = Self::new(a, b);
        Self::new(seed.hash(&[c, d, 0]), seed.hash(&[c, d, 1]))
    }

    /// Hashes whole words, each as its eight bytes in little-endian order.
    pub(super) fn hash(self, words: &[u64]) -> u64 {
        let mut state = State {
            v0: self.k0 ^ 0x736f_6d65_7073_6575,
            v1: self.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.k0 ^ 0x6c79_6765_6e65_7261,
            v3: self.k1 ^ 0x7465_6462_7974_6573,
        };
        for word in words {
            state.absorb(*word);
        }
        // The last word has the length in its highest byte and no further bytes.
        state.absorb((words.len() as u64 * 8) << 56);
        state.finish()
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    const fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    const fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    const fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        deprecated,
        reason = "the standard library has SipHash-2-4 under no other name"
    )]
    fn whole_words_hash_as_the_standard_library_hashes_them() {
        use std::hash::{Hasher, SipHasher};
        let words = [0, 1, u64::MAX, 0x0706_0504_0302_0100, 42, 1 << 63, 7];
        for (k0, k1) in [(0, 0), (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)] {
            for len in 0..=words.len() {
                let mut hasher = SipHasher::new_with_keys(k0, k1);
                for word in &words[..len] {
                    hasher.write(&word.to_le_bytes());
                }
                assert_eq!(
                    Key::new(k0, k1).hash(&words[..len]),
                    hasher.finish(),
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn a_word_of_the_authors_has_their_hash() {
        // From `vectors_sip64` in the reference implementation: eight bytes 00 to 07 under the key
        // 00 to 0f.
        let key = Key::new(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(key.hash(&[0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
    }
}
