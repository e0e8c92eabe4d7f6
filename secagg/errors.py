"""Every error that this package raises, in one tree.

Three families tell the caller who has to act: the setting or the input is wrong (``ParameterError``,
``InputError``), this side called a method out of turn (``LocalProtocolError``), or the other side broke the
protocol (``RemoteProtocolError``, which names its ``culprits``). ``AbortError`` means that everybody behaved and
the round still cannot finish. No message ever holds a value of an update, a weight, or a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from secagg.privacy.events import Event

SERVER = "server"
"""The culprit when the server broke the protocol: what arrived could not have come from an honest one."""


class SecAggError(Exception):
    """Base of all errors of this package.

    Args:
        message: What is wrong and which setting changes it.
        culprits: Ids of the clients that caused it, or ``SERVER``, where that is known.

    Attributes:
        opened: Whether the session that it ended had asked for shares, so that the server may have seen the sum; set by
            ``simulate`` and by ``combine``, which see the whole of it.
        event: What that costs privacy all the same (``PrivacyLedger.record``); None without ``privacy``.
    """

    opened: bool = False
    event: Event | None = None

    def __init__(self, message: str, *, culprits: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.culprits = tuple(culprits)


class ParameterError(SecAggError, ValueError):
    """A setting is outside its domain, or two settings contradict each other."""


class InputError(SecAggError, ValueError):
    """What a client wants to contribute cannot be aggregated; nothing has been sent."""


class LayoutMismatchError(InputError):
    """An update or a mask has other tensors, names, shapes or dtypes than the layout."""


class NotFiniteError(InputError):
    """An update holds NaN or infinity."""


class OutOfRangeError(InputError):
    """An update holds a value beyond ``value_range``."""


class WeightError(InputError):
    """A weight is not in (0, max_weight], or rounds to zero."""


class LocalProtocolError(SecAggError):
    """This side called a method in a state that does not allow it."""


class RemoteProtocolError(SecAggError):
    """The other side broke the protocol."""


class DecodingError(RemoteProtocolError):
    """Bytes are no canonical message: wrong version, tag, length or encoding, or trailing bytes."""


class UnexpectedMessageError(RemoteProtocolError):
    """A well-formed message that this state does not accept."""


class DuplicateMessageError(RemoteProtocolError):
    """A second message of one client in one round."""


class UnknownClientError(RemoteProtocolError):
    """A message of, or about, a client that is not in the cohort."""


class AgreementError(RemoteProtocolError):
    """Client and server hold different sessions, parameters, layouts or transcripts."""


class KeyAgreementError(RemoteProtocolError):
    """A public key is malformed, of low order, or used twice."""


class SignatureError(RemoteProtocolError):
    """A statement that the pinned identity of its author did not sign."""


class ShareError(RemoteProtocolError):
    """A secret share does not decrypt, or contradicts its commitment."""


class UnmaskRefusedError(RemoteProtocolError):
    """A client refuses to unmask: what it was asked for would release too small a group."""


class AbortError(SecAggError):
    """The round cannot finish, although nobody broke the protocol."""


class TooFewClientsError(AbortError):
    """Fewer clients are left than a threshold demands."""


class CoverageError(AbortError):
    """The release rule lets nothing, or not all that is needed, out."""


class DifferencingError(AbortError):
    """This session and earlier ones, combined, would isolate too small a group."""


class ChecksumError(AbortError):
    """The unmasked sums contradict their checksum: masks were misaligned, or somebody computed wrongly."""
