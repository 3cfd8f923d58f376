//! The part of BER that LDAP uses (X.690, RFC 4511 §5.1): definite lengths and tags below 31.

/// The tag of an INTEGER.
pub const INTEGER: u8 = 0x02;
/// The tag of an ENUMERATED.
pub const ENUMERATED: u8 = 0x0a;
/// The tag of an OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// The tag of a BOOLEAN.
pub const BOOLEAN: u8 = 0x01;
/// The tag of a SEQUENCE.
pub const SEQUENCE: u8 = 0x30;

/// Octets that are not the expected BER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not LDAP")]
pub struct BerError;

/// Appends one element, with its length in the shortest form.
pub fn write(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let octets = content.len().to_be_bytes();
    let first = octets.iter().position(|octet| *octet != 0);
    let length = first.map_or(&octets[..0], |first| &octets[first..]);
    match length {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // A usize has at most eight octets.
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
}

/// Appends an INTEGER or ENUMERATED that is not negative.
pub fn write_number(out: &mut Vec<u8>, tag: u8, number: u32) {
    let mut octets = vec![0];
    octets.extend_from_slice(&number.to_be_bytes());
    // A leading zero stays if the next octet would make the number negative.
    while octets.len() > 1 && octets[0] == 0 && octets[1] < 0x80 {
        octets.remove(0);
    }
    write(out, tag, &octets);
}

/// Returns the length of the first element with its header; `None` if more octets are needed.
///
/// # Errors
/// [`BerError`] for an indefinite length, a tag of several octets, or an element longer than `max`.
pub fn element_length(input: &[u8], max: usize) -> Result<Option<usize>, BerError> {
    let (Some(tag), Some(first)) = (input.first(), input.get(1)) else {
        return Ok(None);
    };
    if tag & 0x1f == 0x1f {
        return Err(BerError);
    }
    let (header, content) = if first & 0x80 == 0 {
        (2, usize::from(*first))
    } else {
        let octets = usize::from(first & 0x7f);
        if octets == 0 || octets > 4 {
            return Err(BerError);
        }
        let Some(length) = input.get(2..2 + octets) else {
            return Ok(None);
        };
        let fold = |length: usize, octet: &u8| (length << 8) | usize::from(*octet);
        (2 + octets, length.iter().fold(0, fold))
    };
    if content > max {
        return Err(BerError);
    }
    Ok(Some(header + content))
}

/// Splits the first element off: its tag, its content, and the octets behind it.
///
/// # Errors
/// [`BerError`] if there is no complete element.
pub fn read(input: &[u8]) -> Result<(u8, &[u8], &[u8]), BerError> {
    let length = element_length(input, input.len())?.ok_or(BerError)?;
    let (element, rest) = input.split_at_checked(length).ok_or(BerError)?;
    let header = match element[1] {
        short if short & 0x80 == 0 => 2,
        long => 2 + usize::from(long & 0x7f),
    };
    Ok((element[0], &element[header..], rest))
}

/// Splits the first element off, which must have this tag.
///
/// # Errors
/// [`BerError`] if it has another tag, or is not complete.
pub fn read_tag(input: &[u8], wanted: u8) -> Result<(&[u8], &[u8]), BerError> {
    match read(input)? {
        (tag, content, rest) if tag == wanted => Ok((content, rest)),
        _ => Err(BerError),
    }
}

/// Splits a number off that is not negative and fits.
///
/// # Errors
/// [`BerError`] for anything else.
pub fn read_number(input: &[u8], wanted: u8) -> Result<(u32, &[u8]), BerError> {
    let (content, rest) = read_tag(input, wanted)?;
    let (first, zero) = (content.first().ok_or(BerError)?, content.len() == 5);
    if first & 0x80 != 0 || content.len() > 5 || (zero && *first != 0) {
        return Err(BerError);
    }
    let fold = |number: u32, octet: &u8| (number << 8) | u32::from(*octet);
    Ok((content.iter().fold(0, fold), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let (content, mut out) = (vec![7; length], Vec::new());
            write(&mut out, OCTET_STRING, &content);
            out.push(9);
            assert_eq!(element_length(&out, length), Ok(Some(out.len() - 1)));
            assert_eq!(read(&out), Ok((OCTET_STRING, &content[..], &[9][..])));
        }
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for (number, octets) in [
            (0, &[0][..]),
            (1, &[1]),
            (127, &[127]),
            (128, &[0, 128]),
            (256, &[1, 0]),
            (u32::MAX, &[0, 255, 255, 255, 255]),
        ] {
            let mut out = Vec::new();
            write_number(&mut out, INTEGER, number);
            assert_eq!(&out[2..], octets);
            assert_eq!(read_number(&out, INTEGER), Ok((number, &[][..])));
        }
    }

    #[test]
    fn other_octets_are_errors_or_incomplete() {
        for input in [&[][..], &[0x30], &[0x30, 0x82, 1]] {
            assert_eq!(element_length(input, 1000), Ok(None));
        }
        for input in [
            // An indefinite length, a length of five octets, a long tag, and too long an element.
            &[0x30, 0x80, 0, 0][..],
            &[0x30, 0x85, 0, 0, 0, 0, 1],
            &[0x1f, 1, 0],
            &[0x30, 0x83, 1, 0, 0],
        ] {
            assert_eq!(element_length(input, 1000), Err(BerError), "{input:?}");
        }
        for input in [&[0x04, 5, 1][..], &[0x04], &[]] {
            assert_eq!(read(input), Err(BerError));
        }
        for input in [
            &[2, 0][..],
            &[2, 1, 0x80],
            &[2, 6, 0, 0, 0, 0, 0, 1],
            &[4, 1, 1],
        ] {
            assert_eq!(read_number(input, INTEGER), Err(BerError), "{input:?}");
        }
    }
}
