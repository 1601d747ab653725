//! The few shapes that fields have. Reading never trusts a length and never allocates more than
//! what was received.

use super::{Malformed, StartId, TooLong};

/// Appends fields. A length that does not fit is remembered and told by [`Writer::finish`].
pub(super) struct Writer {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            too_long: false,
        }
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, TooLong> {
        if self.too_long {
            Err(TooLong)
        } else {
            Ok(self.bytes)
        }
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn start_id(&mut self, value: StartId) {
        self.u64(value.0);
    }

    pub(super) fn digest(&mut self, value: &[u8; 32]) {
        self.bytes.extend_from_slice(value);
    }

    pub(super) fn string(&mut self, value: &[u8]) {
        match u32::try_from(value.len()) {
            Ok(length) => {
                self.u32(length);
                self.bytes.extend_from_slice(value);
            }
            Err(_) => self.too_long = true,
        }
    }

    pub(super) fn list<T>(&mut self, values: &[T], mut each: impl FnMut(&mut Self, &T)) {
        match u16::try_from(values.len()) {
            Ok(count) => {
                self.u16(count);
                for value in values {
                    each(self, value);
                }
            }
            Err(_) => self.too_long = true,
        }
    }
}

/// Takes fields off the front.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: Malformed = Malformed("a frame ends inside a field");

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Whether every field was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a truth value is neither 0 nor 1")),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn start_id(&mut self) -> Result<StartId, Malformed> {
        Ok(StartId(self.u64()?))
    }

    pub(super) fn digest(&mut self) -> Result<[u8; 32], Malformed> {
        self.array()
    }

    pub(super) fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(head.to_vec())
    }

    pub(super) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        // Every element takes bytes, so that the frame itself bounds the loop.
        let count = self.u16()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(each(self)?);
        }
        Ok(values)
    }
}
