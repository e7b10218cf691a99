//! The program that chooses packets for the sockets: made by a small assembler, checked by tests.
//!
//! A frame goes to the socket of its receive queue if all of this is true; everything else passes
//! to the kernel, as without a program:
//! - Ethernet frame to the interface's own address, without a VLAN tag in its bytes (one that the
//!   interface has taken out of the frame is invisible);
//! - IPv4 without options, not a fragment;
//! - UDP to the given port, at one of the given addresses;
//! - the receive queue has a socket.

use std::net::Ipv4Addr;

/// Largest number of local addresses of a program. Packets to further ones pass to the kernel.
pub const MAX_ADDRESSES: usize = 64;

/// Packets that a program takes from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Address of the interface.
    pub mac: [u8; 6],
    /// Local addresses. At most [`MAX_ADDRESSES`] are used.
    pub addresses: Vec<Ipv4Addr>,
    /// UDP destination port.
    pub port: u16,
}

/// Instruction of the kernel's virtual machine, in the byte order of this machine.
pub(crate) type Instruction = [u8; 8];

/// Register.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Reg {
    /// Result.
    R0,
    /// First argument: at the start, the context.
    R1,
    /// Second argument.
    R2,
    /// Third argument.
    R3,
    /// First byte of the frame.
    R6 = 6,
    /// End of the frame's first part.
    R7,
}
use Reg::{R0, R1, R2, R3, R6, R7};

/// Size of a load.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}
use Size::{Byte, Half, Word};

/// Target of a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Pass,
    Redirect,
}

// Operation codes (Documentation/bpf/standardization/instruction-set.rst of Linux).
const LDX_MEM: u8 = 0x61;
const LD_IMM_64: u8 = 0x18;
const MOV_REG: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const ADD_IMM: u8 = 0x07;
const AND_IMM: u8 = 0x57;
const JUMP: u8 = 0x05;
/// Jump if the first register is above the second.
const JGT_REG: u8 = 0x2d;
/// Jumps by the lower 32 bits of a register.
const JEQ32_IMM: u8 = 0x16;
const JNE32_IMM: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Source register that marks a constant as the descriptor of a map (`BPF_PSEUDO_MAP_FD`).
const PSEUDO_MAP_FD: u8 = 1;
/// Helper `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;
/// Verdict `XDP_PASS`. In the flags of `bpf_redirect_map`: the verdict for a queue without a
/// socket.
const XDP_PASS: i32 = 2;

// Offsets in the context (`struct xdp_md`).
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

// Offsets in the frame.
const MAC_START: i16 = 0;
const MAC_END: i16 = 4;
const ETHER_TYPE: i16 = 12;
const VERSION: i16 = 14;
const FRAGMENT: i16 = 20;
const PROTOCOL: i16 = 23;
const DESTINATION: i16 = 30;
const DESTINATION_PORT: i16 = 36;
/// Ethernet, IPv4 and UDP headers.
const HEADERS: i32 = 14 + 20 + 8;

/// Instructions with labels.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Assembler {
    fn put(&mut self, operation: u8, to: Reg, from: u8, offset: i16, constant: i32) {
        let registers = if cfg!(target_endian = "little") {
            to as u8 | from << 4
        } else {
            (to as u8) << 4 | from
        };
        let [low, high] = offset.to_ne_bytes();
        let [a, b, c, d] = constant.to_ne_bytes();
        self.code
            .push([operation, registers, low, high, a, b, c, d]);
    }

    fn load(&mut self, size: Size, to: Reg, from: Reg, offset: i16) {
        self.put(LDX_MEM | size as u8, to, from as u8, offset, 0);
    }

    fn constant(&mut self, operation: u8, to: Reg, value: i32) {
        self.put(operation, to, 0, 0, value);
    }

    fn jump(&mut self, operation: u8, register: Reg, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.put(operation, register, 0, 0, value);
    }

    /// Passes the frame on unless the bytes at `offset` have a value.
    fn require(&mut self, size: Size, offset: i16, value: i32) {
        self.load(size, R3, R6, offset);
        self.jump(JNE32_IMM, R3, value, Label::Pass);
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.code.len()));
    }

    /// Writes the distances of all jumps.
    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in &self.jumps {
            let target = self.labels.iter().find(|(each, _)| each == label);
            if let (Some((_, target)), Some(code)) = (target, self.code.get_mut(*at)) {
                let distance = (*target as i16) - (*at as i16) - 1;
                if let Some(place) = code.get_mut(2..4) {
                    place.copy_from_slice(&distance.to_ne_bytes());
                }
            }
        }
        self.code
    }
}

/// Returns 2 bytes of a frame as the number that a load of them yields.
fn half(bytes: [u8; 2]) -> i32 {
    i32::from(u16::from_ne_bytes(bytes))
}

/// Returns the program for a selection; `map` is the descriptor of the map of sockets.
pub(crate) fn assemble(selection: &Selection, map: i32) -> Vec<Instruction> {
    let [a, b, c, d, e, f] = selection.mac;
    let mut code = Assembler::default();
    code.load(Word, R6, R1, DATA);
    code.load(Word, R7, R1, DATA_END);
    code.put(MOV_REG, R2, R6 as u8, 0, 0);
    code.constant(ADD_IMM, R2, HEADERS);
    code.jumps.push((code.code.len(), Label::Pass));
    code.put(JGT_REG, R2, R7 as u8, 0, 0);
    code.require(Word, MAC_START, i32::from_ne_bytes([a, b, c, d]));
    code.require(Half, MAC_END, half([e, f]));
    code.require(Half, ETHER_TYPE, half([0x08, 0x00]));
    code.require(Byte, VERSION, 0x45);
    // More fragments, or an offset.
    code.load(Half, R3, R6, FRAGMENT);
    code.constant(AND_IMM, R3, half([0x3f, 0xff]));
    code.jump(JNE32_IMM, R3, 0, Label::Pass);
    code.require(Byte, PROTOCOL, 17);
    code.require(Half, DESTINATION_PORT, half(selection.port.to_be_bytes()));
    code.load(Word, R3, R6, DESTINATION);
    for address in selection.addresses.iter().take(MAX_ADDRESSES) {
        let value = i32::from_ne_bytes(address.octets());
        code.jump(JEQ32_IMM, R3, value, Label::Redirect);
    }
    code.jump(JUMP, R0, 0, Label::Pass);
    code.label(Label::Redirect);
    code.load(Word, R2, R1, RX_QUEUE_INDEX);
    code.put(LD_IMM_64, R1, PSEUDO_MAP_FD, 0, map);
    code.code.push([0; 8]);
    code.constant(MOV_IMM, R3, XDP_PASS);
    code.constant(CALL, R0, REDIRECT_MAP);
    code.constant(EXIT, R0, 0);
    code.label(Label::Pass);
    code.constant(MOV_IMM, R0, XDP_PASS);
    code.constant(EXIT, R0, 0);
    code.finish()
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    /// Bytes of the program for `10.0.0.2` and `10.0.1.2` at port 6081, with map 7.
    const EXPECTED: &str = include_str!("program.hex");

    #[test]
    fn the_program_is_the_one_that_was_reviewed() {
        let selection = Selection {
            mac: [0x02, 0x11, 0x22, 0x33, 0x44, 0x55],
            addresses: vec![[10, 0, 0, 2].into(), [10, 0, 1, 2].into()],
            port: 6081,
        };
        let lines = assemble(&selection, 7).into_iter().map(|instruction| {
            let bytes = instruction.map(|byte| format!("{byte:02x}"));
            bytes.join(" ")
        });
        let expected = EXPECTED.lines().filter(|line| !line.starts_with('#'));
        let expected = expected.filter_map(|line| Some(line.split("  ").next()?.to_owned()));
        assert_eq!(lines.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn no_jump_is_longer_than_its_field() {
        let selection = Selection {
            mac: [0; 6],
            addresses: vec![Ipv4Addr::LOCALHOST; 10 * MAX_ADDRESSES],
            port: 1,
        };
        assert!(assemble(&selection, 7).len() < 128);
    }
}
