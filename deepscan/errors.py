"""Every error deepscan raises on purpose.

    DeepscanError
    ├── InputError            the file handed in cannot be analysed
    │   ├── UnreadableInput   missing, forbidden, empty, cut, not a picture or video, too large
    │   ├── NoVideoStream     readable media, but nothing in it to look at (audio only)
    │   ├── LimitExceeded     it takes more time or memory than allowed, or hangs
    │   └── ProcessDied       its process crashed, or was taken over
    ├── WeightsError
    │   ├── WeightsMissing    not on this machine, and cannot be fetched
    │   └── WeightsMismatch   there, but not what it claims to be
    ├── DataError             training or test data is missing, malformed or one-sided
    ├── OutputError           results cannot be written, or would overwrite others
    └── SettingsError         a setting has no meaning, or contradicts another

A message says what is wrong, where, and what to do next. Errors of other libraries are turned into
these in one place each: PyAV's and Pillow's in `media`, safetensors' and pip's in `model`.
"""

import re

# After "://", a name and a colon with anything up to an @, if it is not a port; or everything before an @.
_USERINFO = re.compile(r"(?<=://)(?:[^/\s@:]*:(?!\d*(?:/|$))\S*@|[^/\s]*@)")


def without_userinfo(text: str) -> str:
    """The text with no user name or password in its addresses: "s3://me:secret@host" is "s3://host"."""
    return _USERINFO.sub("", text)


class DeepscanError(Exception):
    """Base of all expected failures; anything else that escapes is a bug.

    No message holds a user name or password that stood in an address.
    """

    def __str__(self) -> str:
        return without_userinfo(super().__str__())


class InputError(DeepscanError):
    """The given file cannot be analysed."""


class UnreadableInput(InputError):
    """The file cannot be opened or holds no decodable picture."""


class NoVideoStream(InputError):
    """The file is media without a video stream."""


class LimitExceeded(InputError):
    """Analysing the file takes more time or memory than it may."""


class ProcessDied(InputError):
    """The process that decodes or scores the file crashed, or sent nonsense."""


class WeightsError(DeepscanError):
    """Detector or base weights cannot be used."""


class WeightsMissing(WeightsError):
    """The weights are not on this machine and could not, or must not, be fetched."""


class WeightsMismatch(WeightsError):
    """The weights differ from what was asked for: hash, keys, shapes, version or form."""


class DataError(DeepscanError):
    """A data set is missing, malformed, or holds one class only."""


class OutputError(DeepscanError):
    """Results cannot be written where asked."""


class SettingsError(DeepscanError):
    """A setting is out of range, unknown or contradictory."""
