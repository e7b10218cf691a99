//! Scripts that the store runs, so that no owner replaces or deletes a newer record of another one.
//!
//! Each reads the head of the value (see [`super::envelope`]): owner, epoch, and the time at which
//! the session began. A value without a head is foreign and gives way. The store cannot check a
//! MAC; the answer of [`PUT`] holds the value that is newer, and a writer that finds its MAC wrong
//! replaces it ([`REPLACE`]).

#[cfg(doc)]
use portcullis::continuity::Claim;
use redis::{Cmd, Script};

/// Script of the store.
#[derive(Debug, Clone)]
pub(super) struct StoreScript {
    text: &'static str,
    pub(super) hash: String,
}

impl StoreScript {
    pub(super) fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: Script::new(text).get_hash().to_owned(),
        }
    }

    /// Returns a command that loads the script; its answer is the hash.
    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.text);
        command
    }

    /// Returns a command that runs the script for a key; arguments follow.
    pub(super) fn invoke(&self, key: &[u8]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(1).arg(key);
        command
    }
}

/// Defines a function that returns whether the value of the first key is one of a later version.
/// Every version gives its values a time to live; a value without one, or with one of more than 30
/// days, is foreign and gives way.
macro_rules! is_later_version {
    () => {
        concat!(
            "local function is_later_version(value)\n",
            "  if #value < 3 or string.sub(value, 1, 2) ~= 'PC'\n",
            "    or string.byte(value, 3) < 3 then\n",
            "    return false\n",
            "  end\n",
            "  local left = redis.call('PTTL', KEYS[1])\n",
            "  return left > 0 and left < 2592000000\n",
            "end\n",
        )
    };
}

/// Reads the value of the first key to `head` (its beginning), `epoch` and `owner`; both are `nil`
/// if the value is foreign or missing. `number` reads 8 bytes of a head.
macro_rules! with_head {
    ($rest:literal) => {
        concat!(
            "local head = redis.pcall('GETRANGE', KEYS[1], 0, 36)\n",
            "local function number(bytes, first)\n",
            "  local n = 0\n",
            "  for i = first, first + 7 do n = n * 256 + string.byte(bytes, i) end\n",
            "  return n\n",
            "end\n",
            is_later_version!(),
            "local epoch, owner\n",
            "if type(head) == 'string' and #head == 37\n",
            "  and string.sub(head, 1, 3) == 'PC\\2' then\n",
            "  epoch = number(head, 21)\n",
            "  owner = string.sub(head, 5, 20)\n",
            "end\n",
            $rest
        )
    };
}

/// Writes a value, unless there is a newer one: of a connection that began later, or else of a
/// higher epoch, or of the same epoch and another owner. Returns 1, or 2 if it has replaced a
/// foreign value, or the newer value. A value of a later version stays as well, until its time to
/// live is over: the answer is 3, since its owner and epoch cannot be read.
///
/// Epochs of two connections say nothing about each other: a value of an earlier connection gives
/// way, whatever its epoch. [`Claim::is_of_later_connection`] is the same comparison, with the same
/// slack.
///
/// Arguments: the value, its epoch, its owner, its time to live in milliseconds, and the length
/// from which values are foreign.
pub(super) const PUT: &str = with_head!(
    "local mine = tonumber(ARGV[2])
if epoch then
  local later = number(head, 29) - number(ARGV[1], 29)
  local is_later = later > 5000000 and string.byte(head, 37) == 0
  local is_earlier = later < -5000000 and string.byte(ARGV[1], 37) == 0
  local is_above = epoch > mine or (epoch == mine and owner ~= ARGV[3])
  if is_later or (is_above and not is_earlier) then
    return redis.call('GETRANGE', KEYS[1], 0, ARGV[5])
  end
elseif type(head) == 'string' and is_later_version(head) then
  return 3
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
if not epoch and head ~= '' then return 2 end
return 1"
);

/// Answer of [`PUT`] if it has replaced a foreign value.
pub(super) const REPLACED: i64 = 2;

/// Answer of [`PUT`] if a value of a later version stays.
pub(super) const LATER_VERSION: i64 = 3;

/// Writes a value in place of another one that is still there: the beginning of the old value, the
/// new one, its time to live, and the length of the beginning. Returns 1, or 0.
pub(super) const REPLACE: &str = "local old = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[4])
if old == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return 0";

/// Deletes a value of an owner and of an epoch, or of an earlier one. Returns 1, or 0.
pub(super) const DELETE: &str = with_head!(
    "if epoch and owner == ARGV[2] and epoch <= tonumber(ARGV[1]) then
  return redis.call('DEL', KEYS[1])
end
return 0"
);

/// Takes a value, so that it is found once: its beginning, up to a place. A value of another type
/// is deleted. A value of a later version stays for the appliances that can read it.
pub(super) const TAKE: &str = concat!(
    is_later_version!(),
    "local value = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1])
if type(value) == 'table' then
  if not string.find(value.err, 'WRONGTYPE') then return value end
  redis.call('DEL', KEYS[1])
  return redis.status_reply('FOREIGN')
end
if is_later_version(value) then
  return redis.status_reply('FOREIGN')
end
if #value > 0 then redis.call('DEL', KEYS[1]) end
return value"
);

/// Takes values from the beginning of a list: the most of them, and the length from which they are
/// foreign. An empty value stands for a foreign one. A list of another type is deleted.
pub(super) const MOVED: &str = "local values = {}
for i = 1, tonumber(ARGV[1]) do
  local value = redis.pcall('LPOP', KEYS[1])
  if not value then break end
  if type(value) == 'table' then
    if not string.find(value.err, 'WRONGTYPE') then return value end
    redis.call('DEL', KEYS[1])
    return {''}
  end
  if #value > tonumber(ARGV[2]) then value = '' end
  values[i] = value
end
return values";

/// Adds a value to a list, which holds at most so many and is forgotten after a while: the value,
/// the bound, and the time to live in milliseconds.
pub(super) const NOTIFY: &str = "redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";
