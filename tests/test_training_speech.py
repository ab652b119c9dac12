"""Phonemes with their times, and the mouths they ask for."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import sounds, texts, visemes
from training.speech import SAMPLE_RATE, Phone, SpeechError, Utterance, espeak, say_flite


def _has_espeak() -> bool:
    try:
        espeak()
    except SpeechError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not _has_espeak(), reason="espeak-ng is not installed")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")

SYNTHESISERS = [
    pytest.param(lambda text: espeak().say(text, "en-us"), marks=needs_espeak, id="espeak-ng"),
    pytest.param(lambda text: say_flite(text, "rms"), marks=needs_flite, id="flite"),
]


@pytest.mark.parametrize("say", SYNTHESISERS)
def test_phones_follow_each_other_to_the_end(say):
    said = say("My baby thinks of shoes.")
    starts, ends = [phone.start for phone in said.phones], [phone.end for phone in said.phones]
    assert starts[1:] == pytest.approx(ends[:-1], abs=0.02)
    assert all(start < end for start, end in zip(starts, ends, strict=True))
    assert ends[-1] <= said.seconds + 0.05
    assert "".join(phone.symbol for phone in said.phones).startswith(("m", "_m"))


@pytest.mark.parametrize("say", SYNTHESISERS)
def test_an_open_vowel_sounds_louder_than_the_closure_before_it(say):
    said = say("Papa, papa, papa.")
    loud = {True: [], False: []}
    for phone in said.phones:
        if phone.symbol[:1] in ("p", "ɑ"):
            part = said.samples[int(phone.start * SAMPLE_RATE) : int(phone.end * SAMPLE_RATE)]
            loud[phone.symbol[0] == "p"].append(float((part**2).mean()))
    assert np.median(loud[False]) > 4 * np.median(loud[True])


@needs_espeak
def test_an_unknown_voice_is_refused():
    with pytest.raises(SpeechError, match="no-such-voice"):
        espeak().say("Hello.", "no-such-voice")


@needs_espeak
def test_an_unknown_variant_is_refused():
    with pytest.raises(SpeechError, match="zzz"):
        espeak().say("Hello.", "en-us+zzz")


def _texts():
    words = " ".join(texts.WORDS)
    yield "en-us", words
    for voice in ("en-gb-scotland", "en-gb-x-rp"):
        yield pytest.param(voice, words, marks=pytest.mark.slow)
    for language, sentences in (texts.TRAINING_SENTENCES | texts.HELD_OUT).items():
        yield language, " ".join(sentences)


@needs_espeak
@pytest.mark.parametrize(("voice", "text"), [*_texts()], ids=lambda one: one[:14])
def test_every_sound_of_every_text_has_a_shape(voice, text):
    said = espeak().say(text, voice)
    assert len(said.phones) > 20
    visemes.curve(said.phones, said.seconds)


def test_a_sound_without_a_shape_is_an_error_and_not_silence():
    with pytest.raises(KeyError):
        visemes.curve([Phone("ʘ", 0.0, 0.2)], 0.3)


@needs_flite
@needs_espeak
def test_clips_of_judges_repeat():
    one, other = (sounds.held_out_clips(seed=5) for _ in range(2))
    assert len(one) == len(sounds.HELD_OUT_VOICES)
    assert all(
        (a.samples == b.samples).all() and (a.frames == b.frames).all()
        for a, b in zip(one, other, strict=True)
    )


@needs_flite
@needs_espeak
def test_training_clips_repeat_and_keep_lips_closed_on_closures():
    one, other = sounds.training_clips(2, seed=1, workers=1), sounds.training_clips(2, seed=1, workers=2)
    first, one = list(one)
    again, other = list(other)
    assert (first.samples == again.samples).all()
    assert (one.samples == other.samples).all()
    assert (one.samples != first.samples).any()
    middles = (np.arange(sounds.ROWS) + 0.5) / 50
    inside = ((one.closures[:, :1] <= middles) & (middles <= one.closures[:, 1:])).any(0)
    assert inside.sum() > 10
    assert one.rows[inside, visemes.OPENING].max() < 0.05
    assert one.rows[:, visemes.OPENING].max() > 0.5


def test_voices_that_judge_are_not_voices_that_train():
    assert not set(sounds.HELD_OUT_VOICES) & (
        set(sounds.ENGLISH) | {f"flite {one}" for one in sounds.RECORDED}
    )
    trained = {voice.partition("+")[2] for voice in sounds.ENGLISH} | {one[1:] for one in sounds.VARIANTS}
    assert not {voice.partition("+")[2] for voice in sounds.HELD_OUT_VOICES if "+" in voice} & trained
    languages = {voice.split("+")[0] for voice in sounds.HELD_OUT_VOICES} & set(sounds.TRAINING_SENTENCES)
    assert not languages


PHONES = st.lists(
    st.tuples(st.sampled_from([*"mbpaiuofsθlw_", "aɪ", "tʃ", ""]), st.floats(0.02, 0.4)),
    min_size=1,
    max_size=30,
)


def _laid(parts):
    ends = np.cumsum([length for _, length in parts])
    return [
        Phone(symbol, float(end - length), float(end))
        for (symbol, length), end in zip(parts, ends, strict=True)
    ]


@given(PHONES)
def test_mouth_values_stay_in_range_and_lips_meet_on_every_closure(parts):
    phones = _laid(parts)
    seconds = phones[-1].end + 0.3
    values = visemes.curve(phones, seconds)
    assert values.shape == (int(np.ceil(seconds * visemes.CURVE_RATE)) + 1, 5)
    assert values.min() >= 0
    assert values.max() <= 1
    for phone in phones:
        if visemes.closes(phone.symbol):
            middle = visemes.sample(values, np.array([(phone.start + phone.end) / 2]))
            assert middle[0, visemes.OPENING] < 0.05


@given(st.floats(0.05, 3))
def test_silence_is_rest(seconds):
    values = visemes.curve([Phone("_", 0.0, seconds)], seconds)
    assert np.allclose(values, np.float32(visemes.REST), atol=1e-6)


@pytest.mark.parametrize(
    ("symbol", "value", "other"),
    [
        ("ɑː", visemes.OPENING, "i"),
        ("iː", visemes.WIDTH, "u"),
        ("uː", visemes.ROUNDING, "i"),
        ("f", visemes.TEETH, "u"),
        ("θ", visemes.TONGUE, "f"),
    ],
)
def test_a_long_sound_shows_what_it_is_known_for(symbol, value, other):
    shown = [
        visemes.sample(visemes.curve([Phone(one, 0.2, 0.8)], 1.0), np.array([0.5]))[0, value]
        for one in (symbol, other)
    ]
    assert shown[0] > shown[1] + 0.2


def test_between_two_shapes_a_diphthong_moves():
    values = visemes.curve([Phone("aʊ", 0.1, 0.6)], 0.7)
    early, late = visemes.sample(values, np.array([0.2, 0.5]))
    assert early[visemes.OPENING] > late[visemes.OPENING]
    assert early[visemes.ROUNDING] < late[visemes.ROUNDING]


def test_a_clip_puts_mouths_where_their_sounds_are():
    said = Utterance(
        np.ones(SAMPLE_RATE, np.float32), (Phone("_", 0.0, 0.3), Phone("ɑ", 0.3, 0.7), Phone("_", 0.7, 1.0))
    )
    made = sounds.clip(np.random.default_rng(0), lambda _: said)
    loud = np.flatnonzero(made.samples)
    start = loud[0] / SAMPLE_RATE
    opening = made.frames[:, visemes.OPENING]
    first = slice(0, int((start + 1) * 25))
    peak = (float(opening[first].argmax()) + 0.5) / 25
    assert start + 0.3 < peak < start + 0.7
    assert opening[: int(start * 25)].max(initial=0) == 0
