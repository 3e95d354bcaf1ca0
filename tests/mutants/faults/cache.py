"""In a teacher's answers on disk."""

from tests.mutants.fault import Fault

FAULTS = (
    Fault(
        "store-damage-not-noticed",
        "cache/store.py",
        'if _digest(path.read_bytes()) != path.name.split(".")[1]:',
        'if not path.name.split(".")[1]:',
        "a digest not compared",
        ("test_cache.py::test_a_damaged_file_is_named_and_mended",),
    ),
    Fault(
        "store-infinite-answers",
        "cache/store.py",
        "if not np.isfinite(records[name].astype(np.float32)).all():",
        "if np.isnan(records[name].astype(np.float32)).any():",
        "infinities pass",
        ("test_cache.py::test_answers_that_float16_cannot_hold_are_not_written",),
    ),
    Fault(
        "filling-part-half-filled",
        "cache/filling.py",
        "if known.all() and self._store.find(part) is None:",
        "if self._store.find(part) is None:",
        "a part is written before it is whole",
        (
            "test_cache.py::"
            "test_a_part_is_not_written_before_it_is_whole_though_its_pieces_are_gone",
        ),
    ),
    Fault(
        "filling-pieces-unread",
        "cache/filling.py",
        "for piece in _load_pieces(self._store, part):",
        "for piece in ():",
        "what was saved is not found again",
        ("test_cache.py::test_pieces_of_parts_are_put_together_by_whoever_goes_on",),
    ),
    Fault(
        "filling-memory-without-bound",
        "cache/filling.py",
        "if self.held_bytes >= HELD_BYTES:",
        "if False:",
        "what is held grows with the data",
        ("test_cache.py::test_pieces_of_parts_are_put_together_by_whoever_goes_on",),
    ),
    Fault(
        "filling-pieces-left-behind",
        "cache/filling.py",
        "path.unlink(missing_ok=True)",
        "path.exists()",
        "what is no longer needed stays on disk",
        ("test_cache.py::test_a_build_takes_the_pieces_of_a_run_away",),
    ),
    Fault(
        "origin-seed-left-out",
        "cache/origin.py",
        "seed=run.seed if augment else 0,",
        "seed=0,",
        "answers to other views are taken for these",
        ("test_cache.py::test_answers_to_other_questions_are_refused",),
    ),
    Fault(
        "origin-cycle-unread",
        "cache/origin.py",
        "return endless if data.cycle is None else min(data.cycle, endless)",
        "return endless",
        "a field unread",
        ("test_cache.py::test_a_view_is_kept_once_however_often_it_comes_back",),
    ),
    Fault(
        "answers-rest-among-all",
        "cache/answers.py",
        "jnp.log(float(classes - cache.top_k))",
        "jnp.log(float(classes))",
        "the mass of the rest is shared among all classes",
        ("test_cache.py::test_top_k_keeps_the_mass_of_the_largest_and_of_the_rest",),
    ),
    Fault(
        "answers-classes-of-sixteen-bits",
        "cache/answers.py",
        "return np.uint16 if classes <= 2**16 else np.uint32",
        "return np.uint16",
        "a number that is too narrow begins again",
        ("test_cache.py::test_every_class_is_told_from_every_other_however_many_there_are",),
    ),
    Fault(
        "reads-embeddings-always",
        "cache/reads.py",
        '({"embedding"} if cache.embedding else set())',
        '{"embedding"}',
        "a check that lets through what is not kept",
        ("test_cache.py::test_a_loss_that_reads_more_is_refused_before_training",),
    ),
)
