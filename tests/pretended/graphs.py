"""CUDA graphs on the pretended GPU: a tape of operators that is played again, with the rules of a real one.

- A capture runs nothing: what it gives is poison until a replay.
- A replay reads its inputs where they are, and writes its outputs where they were.
- Graphs of a pool share memory: a replay leaves poison in all that the others made, but in what it reads.
- Whatever has the host wait for the device spoils a capture. Its end fails then, and PyTorch's allocator goes
  on taking memory for its pool, until it is told not to.
"""

import torch

POISON = 0xA5


class Tape:
    """What was captured.

    Attributes:
        pool: Whose memory it uses.
        spoilt: Whether something was done that a capture does not allow.
    """

    def __init__(self, pool):
        self.pool = pool
        self.spoilt = False
        self._work = []
        self._made = {}
        self._read = set()

    def note(self, work, read, made):
        """Add an operator: how it is done again, and the host's tensors that it reads and makes."""
        self._work.append(work)
        self._read |= {_place(tensor) for tensor in read} - self._made.keys()
        self._made |= {_place(tensor): tensor for tensor in made if _place(tensor) not in self._read}

    def spoil(self, but=frozenset()):
        """Leave poison in what was made, as another's work in the same memory does."""
        for place, tensor in self._made.items():
            if place not in but:
                tensor.fill_(POISON)

    def play(self):
        """Do all of it again."""
        for other in self.pool.tapes:
            if other is not self:
                other.spoil(self._read)
        for work in self._work:
            work()


class Pool:
    """Memory that graphs share.

    Attributes:
        tapes: Theirs.
        recording: Whether the allocator takes memory for it.
        users: How many captures, under way or done, hold it.
    """

    def __init__(self):
        self.tapes = []
        self.recording = False
        self.users = 0

    def begin(self):
        self.users += 1
        if self.recording:
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        self.recording = True

    def end(self):
        if not self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording = False

    def release(self):
        assert self.users > 0
        self.users -= 1


def _place(tensor):
    return tensor.untyped_storage().data_ptr()


def stands_in(gpu):
    """What is replaced in `torch.cuda`; `gpu` gives the pretended GPU there is now."""

    class Graph:
        def __init__(self, *_, **__):
            self.tape = None

        def capture_begin(self, pool=None, capture_error_mode="global", **_):
            assert gpu().tape is None, "only one capture may be under way"
            gpu().check()
            tape = Tape(Pool() if pool is None else pool)
            tape.pool.begin()
            self.tape = gpu().tape = tape

        def capture_end(self):
            gpu().tape = None
            if self.tape.spoilt:
                raise torch.AcceleratorError(
                    "CUDA error: operation failed due to a previous error during capture"
                )
            self.tape.pool.end()
            self.tape.pool.tapes.append(self.tape)
            self.tape.spoil()

        def pool(self):
            return self.tape.pool

        def replay(self):
            gpu().launch("graph", [], [])
            self.tape.play()

        def reset(self):
            self.tape.pool.tapes.remove(self.tape)
            self.tape.pool.release()

    return {"CUDAGraph": Graph, "graph_pool_handle": Pool}
