//! Cuts an input into pieces, as a network does. The input itself contains the lengths.

/// The maximum number of lengths in the input; they repeat after that.
const LENGTHS_MAX: usize = 15;

/// The lengths of the pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cuts<'a>(&'a [u8]);

impl<'a> Cuts<'a> {
    /// Reads the lengths from the front of an input: their number, then each. Returns them with the
    /// remaining input.
    pub(crate) fn take(input: &'a [u8]) -> (Self, &'a [u8]) {
        let Some((count, rest)) = input.split_first() else { return (Self(&[]), input) };
        let count = usize::from(*count).min(LENGTHS_MAX).min(rest.len());
        let (lengths, rest) = rest.split_at(count);
        (Self(lengths), rest)
    }

    /// Cuts `whole` into pieces. None is empty, unless it is the only one.
    pub(crate) fn pieces<'b>(self, whole: &'b [u8]) -> Vec<&'b [u8]> {
        let (mut pieces, mut rest, mut at) = (Vec::new(), whole, 0);
        while !self.0.is_empty() && !rest.is_empty() {
            let length = usize::from(self.0[at % self.0.len()]) + 1;
            let (piece, more) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            (rest, at) = (more, at + 1);
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(rest);
        }
        pieces
    }

    /// Cuts like [`Cuts::pieces`], and after each line end, so that no command arrives together
    /// with the next.
    pub(crate) fn polite<'b>(self, whole: &'b [u8]) -> Vec<&'b [u8]> {
        let ends = |piece: &'b [u8]| piece.split_inclusive(|octet| *octet == b'\n').collect::<Vec<_>>();
        self.pieces(whole).into_iter().flat_map(ends).collect()
    }
}
