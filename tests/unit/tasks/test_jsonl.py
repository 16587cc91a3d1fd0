import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_crema import tasks
from open_crema.data.sample import Timing
from open_crema.errors import ConfigError, CremaError, DataError
from open_crema.tasks import jsonl

GOOD = {"id": "q1", "video": "a.mp4", "question": "What rings?", "answer": "a phone"}
CHOICE = GOOD | {"options": ["a phone", "a bell", "nothing"]}
UNKNOWN = {"answers_required": False}
LEFT_OPEN = GOOD | {"candidates": ["a bell", "a phone"]}


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "data.jsonl"
        text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
        path.write_bytes(text.encode())
        return path

    return write


def without(*names):
    return {name: value for name, value in GOOD.items() if name not in names}


def test_an_open_ended_question(write, tmp_path):
    (sample,) = jsonl.load(write(GOOD))
    assert sample.id == "q1"
    assert sample.question == (
        "Question: What rings? Answer the question using a single word or phrase."
    )
    assert sample.media == {"video": str(tmp_path / "a.mp4")}
    assert (sample.answers, sample.options, sample.type) == (("a phone",), (), "")


def test_multiple_choice(write):
    (sample,) = jsonl.load(write(CHOICE | {"answer": "a bell", "type": "sound"}))
    assert sample.question == (
        "Question: What rings? Option A: a phone Option B: a bell Option C: nothing "
        "Considering the information presented, select the correct answer from the options."
    )
    assert sample.options == ("a phone", "a bell", "nothing")
    assert sample.answers == ("a bell",)
    assert sample.type == "sound"


def test_several_accepted_answers(write):
    (sample,) = jsonl.load(write(without("answer") | {"answers": ["two", "2"]}))
    assert sample.answers == ("two", "2")


def test_media_of_other_senses(write, tmp_path):
    (sample,) = jsonl.load(
        write(GOOD | {"media": {"thermal": "t/frames", "point": "/else/where.npz"}})
    )
    assert sample.media == {
        "video": str(tmp_path / "a.mp4"),
        "thermal": str(tmp_path / "t" / "frames"),
        "point": "/else/where.npz",
    }


def test_no_video_is_needed_where_another_sense_is_given(write):
    (sample,) = jsonl.load(write(without("video") | {"media": {"audio": "a.wav"}}))
    assert list(sample.media) == ["audio"]


def test_video_may_be_among_the_media(write, tmp_path):
    (sample,) = jsonl.load(write(without("video") | {"media": {"video": "a.mp4"}}))
    assert sample.media == {"video": str(tmp_path / "a.mp4")}


def test_media_root(write, tmp_path):
    (sample,) = jsonl.load(write(GOOD), media_root=tmp_path / "root")
    assert sample.media["video"] == str(tmp_path / "root" / "a.mp4")


def test_ids(write):
    lines = [without("id"), "", GOOD | {"id": 17}, without("id")]
    assert [sample.id for sample in jsonl.load(write(*lines))] == ["line-1", "17", "line-4"]


def test_answers_may_be_unknown(write):
    path = write(without("answer"), CHOICE | {"id": "2"})
    first, second = jsonl.load(path, answers_required=False)
    assert (first.answers, second.answers) == ((), ("a phone",))
    with pytest.raises(DataError, match="line 1: field 'answer' is missing"):
        jsonl.load(path)


def test_ways_of_writing_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    line = json.dumps(GOOD | {"question": "ümläut \u2028 \u0085 ?"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"\r\n{line}\r\n   \r\n".encode())
    (sample,) = jsonl.load(str(path))
    assert "ümläut \u2028 \u0085 ?" in sample.question


def test_candidates_are_kept_and_not_shown(write):
    (sample,) = jsonl.load(write(LEFT_OPEN))
    assert sample.candidates == ("a bell", "a phone")
    assert sample.options == ()
    assert sample.question == jsonl.open_ended("What rings?")
    # They are compared as answers are.
    (sample,) = jsonl.load(write(LEFT_OPEN | {"answer": "A phone."}))
    assert sample.answers == ("A phone.",)
    (sample,) = jsonl.load(write(without("answer") | {"candidates": ["1", "2"]}, ""), **UNKNOWN)
    assert sample.answers == ()


def test_needs_and_pairs(write):
    (sample,) = jsonl.load(
        write(GOOD | {"needs": ["thermal", "video"], "pairs": {"thermal": " 0001 ", "audio": "x"}})
    )
    assert sample.needs == ("video", "thermal")
    assert sample.pairs == {"audio": "x", "thermal": "0001"}
    (sample,) = jsonl.load(write(GOOD))
    assert (sample.needs, sample.pairs, sample.candidates) == ((), {}, ())


def paired(id, answer, **pairs):
    return GOOD | {"id": id, "answer": answer, "pairs": pairs}


def test_a_question_may_be_in_a_pair_of_each_sense(write):
    lines = [
        paired("a", "red", video="1", audio="1"),
        paired("b", "blue", video="1", audio="2"),
        paired("c", "blue", video="2", audio="1"),
        paired("d", "red", video="2", audio="2"),
        paired("alone", "red", thermal="1"),
    ]
    assert [s.id for s in jsonl.load(write(*lines))] == ["a", "b", "c", "d", "alone"]


def test_a_pair_of_three_names_them(write):
    path = write(*[paired(id, id, thermal="07") for id in "abc"])
    with pytest.raises(DataError) as error:
        jsonl.load(path)
    assert str(error.value) == (
        f"{path}, line 3: pair '07' of thermal has three questions, 'a', 'b', 'c'; a pair is two"
    )


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"answer": "red"}, {"answer": "Red."}, "red"),
        ({"answers": ["two", "2"]}, {"answers": ["3", "2"]}, "2"),
        ({"answer": "Y", "options": ["Y", "y"]}, {"answer": "Y", "options": ["y", "Y"]}, "Y"),
    ],
)
def test_a_pair_of_one_answer_is_none(write, first, second, same):
    line = without("answer") | {"pairs": {"audio": "p"}}
    path = write(line | first, line | second | {"id": "q2"})
    with pytest.raises(DataError) as error:
        jsonl.load(path)
    assert str(error.value) == (
        f"{path}, line 2: pair 'p' of audio: questions 'q1' and 'q2' have the same answer "
        f"{same!r}; those of a pair must differ"
    )


def test_options_that_look_alike_are_different_answers_of_a_pair(write):
    line = without("answer") | {"pairs": {"audio": "p"}, "options": ["Y", "y"]}
    assert len(jsonl.load(write(line | {"answer": "Y"}, line | {"answer": "y", "id": "2"}))) == 2


def test_unknown_answers_may_be_a_pair(write):
    line = without("answer", "id") | {"pairs": {"audio": "p"}}
    assert len(jsonl.load(write(line, line), **UNKNOWN)) == 2


def timed(**stated):
    return GOOD | {"media": {"thermal": {"path": "t"} | stated}}


def test_a_file_with_its_timing(write):
    (sample,) = jsonl.load(write(timed(rate=25, start=-0.4)))
    assert sample.media["thermal"].endswith("/t")
    assert sample.timing == {"thermal": Timing(25.0, -0.4)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not valid JSON"),
        ('{"id": "a"', "not valid JSON"),
        ("[1]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found null"),
        ('"text"', "expected a JSON object, found a string"),
        ("3", "expected a JSON object, found the number 3"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": "a", "id": "b"}', "field 'id' is given twice"),
        (without("question"), "field 'question' is missing"),
        (GOOD | {"question": ""}, "field 'question' is empty"),
        (GOOD | {"question": " \n\t"}, "field 'question' is empty"),
        (GOOD | {"question": None}, "field 'question' must be a string, not null"),
        (GOOD | {"question": ["a"]}, "field 'question' must be a string, not a list"),
        (GOOD | {"question": "\ud800"}, "field 'question' holds half of a UTF-16 pair"),
        (without("answer"), "field 'answer' is missing, and so is 'answers'"),
        (GOOD | {"answer": ""}, "field 'answer' is empty"),
        (GOOD | {"answer": 3}, "field 'answer' must be a string, not the number 3"),
        (GOOD | {"answer": True}, "field 'answer' must be a string, not true or false"),
        (GOOD | {"answers": ["x"]}, "not both"),
        (without("answer") | {"answers": []}, "field 'answer' is missing"),
        (without("answer") | {"answers": "x"}, "field 'answers' must be a list of strings"),
        (without("answer") | {"answers": ["x", 1]}, "field 'answers[1]' must be a string"),
        (CHOICE | {"answer": "A phone"}, "answer 'A phone' is not among the options 'a phone'"),
        (CHOICE | {"options": ["a phone"]}, "field 'options' has 1"),
        (CHOICE | {"options": []}, "field 'options' has 0"),
        (CHOICE | {"options": [str(i) for i in range(27)]}, "field 'options' has 27; give 2 to 26"),
        (CHOICE | {"options": ["a phone", "a phone "]}, "names an option twice"),
        (CHOICE | {"options": "a phone"}, "field 'options' must be a list"),
        (CHOICE | {"options": ["a phone", {}]}, "'options[1]' must be a string, not an object"),
        (
            {k: v for k, v in CHOICE.items() if k != "answer"} | {"answers": ["a phone", "a bell"]},
            "exactly one can be right",
        ),
        (GOOD | {"qestion": "x"}, "unknown field 'qestion', did you mean 'question'?"),
        (GOOD | {"Video": "x"}, "unknown field 'Video', did you mean 'video'?"),
        (GOOD | {"id": ""}, "field 'id' is empty"),
        (GOOD | {"id": 1.5}, "field 'id' must be a string, not the number 1.5"),
        (GOOD | {"id": True}, "field 'id' must be a string, not true or false"),
        (GOOD | {"type": 3}, "field 'type' must be a string"),
        (without("video"), "no media: give field 'video'"),
        (without("video") | {"media": {}}, "no media"),
        (GOOD | {"video": 3}, "field 'video' must be a string"),
        (GOOD | {"video": ""}, "field 'video' is empty"),
        (GOOD | {"video": "a\0b"}, "null character"),
        (GOOD | {"media": "x"}, "field 'media' must map senses to paths, not be a string"),
        (GOOD | {"media": {"termal": "x"}}, "unknown sense 'termal': did you mean 'thermal'?"),
        (GOOD | {"media": {"thermal": 1}}, "field 'media.thermal' must be a string"),
        (GOOD | {"media": {"video": "x"}}, "given twice"),
        (GOOD | {"candidate": ["a", "b"]}, "field 'candidate', did you mean 'candidates'?"),
        (GOOD | {"candidates": "a phone"}, "field 'candidates' must be a list of strings"),
        (GOOD | {"candidates": ["a phone", 3]}, "'candidates[1]' must be a string, not the numb"),
        (GOOD | {"candidates": []}, "field 'candidates' has 0; give 2 or more"),
        (GOOD | {"candidates": ["a phone"]}, "field 'candidates' has 1; give 2 or more"),
        (GOOD | {"candidates": ["a phone", "A phone."]}, "'candidates' names 'A phone.' twice"),
        (GOOD | {"candidates": ["x", "y"]}, "answer 'a phone' is not among the candidates 'x', 'y"),
        (CHOICE | {"candidates": ["a phone", "x"]}, "field 'options' or field 'candidates', not"),
        (
            without("answer") | {"answers": ["1", "one"], "candidates": ["1", "2"]},
            "answer 'one' is not among the candidates '1', '2'",
        ),
        (GOOD | {"need": ["video"]}, "unknown field 'need', did you mean 'needs'?"),
        (GOOD | {"needs": "thermal"}, "field 'needs' must be a list of strings, not a string"),
        (GOOD | {"needs": [None]}, "field 'needs[0]' must be a string, not null"),
        (GOOD | {"needs": ["termal"]}, "'needs': unknown sense 'termal': did you mean 'thermal'?"),
        (GOOD | {"needs": ["video", "video"]}, "field 'needs' names 'video' twice"),
        (GOOD | {"pair": {}}, "unknown field 'pair', did you mean 'pairs'?"),
        (GOOD | {"pairs": ["thermal"]}, "field 'pairs' must map senses to names of pairs, not be"),
        (GOOD | {"pairs": {"termal": "1"}}, "'pairs': unknown sense 'termal': did you mean"),
        (GOOD | {"pairs": {"thermal": 1}}, "field 'pairs.thermal' must be a string, not the numb"),
        (GOOD | {"pairs": {"thermal": " "}}, "field 'pairs.thermal' is empty"),
        (timed(rate=0), "field 'media.thermal.rate' must be above 0 pictures a second"),
        (timed(rate="25"), "field 'media.thermal.rate' must be"),
        (timed(start=None), "field 'media.thermal.start' must be"),
        (timed(fps=25), "unknown field 'media.thermal.fps'; known: path, rate, start"),
        (GOOD | {"media": {"thermal": {"rate": 25}}}, "field 'media.thermal.path'"),
        (GOOD | {"video": {"path": "a.mp4", "start": 2}}, "the video's first picture is second 0"),
    ],
)
def test_a_broken_line_is_named_with_its_number_and_field(write, line, said):
    path = write(GOOD | {"id": "first"}, "", line)
    with pytest.raises(DataError) as error:
        jsonl.load(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert said in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_duplicate_id_names_both_lines(write):
    with pytest.raises(DataError, match=r"line 3: id 'q1' is already that of line 1"):
        jsonl.load(write(GOOD, GOOD | {"id": "q2"}, GOOD))


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "  \n"])
def test_a_file_without_questions(write, text):
    with pytest.raises(DataError, match=r"data\.jsonl: holds no questions"):
        jsonl.load(write(text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="no such data file"):
        jsonl.load(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        jsonl.load(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\xe9\n")
    with pytest.raises(DataError, match=r"latin\.jsonl, line 2: not UTF-8"):
        jsonl.load(tmp_path / "latin.jsonl")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(jsonl.FIELDS), json_values), st.booleans())
def test_any_line_loads_or_is_a_data_error(write, fields, required):
    try:
        (sample,) = jsonl.load(write(GOOD | fields), answers_required=required)
    except DataError:
        return
    assert sample.question
    assert sample.media
    assert not sample.options or set(sample.answers) <= set(sample.options)
    assert not (sample.options and sample.candidates)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_load_or_are_a_data_error(tmp_path, data):
    (tmp_path / "any.jsonl").write_bytes(data)
    with pytest.raises(CremaError):
        jsonl.load(tmp_path / "any.jsonl")


def test_tasks_are_found_by_name(write, tmp_path):
    (sample,) = tasks.load("jsonl", write(GOOD), media_root=tmp_path / "m")
    assert sample.media["video"] == str(tmp_path / "m" / "a.mp4")
    assert tasks.load("jsonl", write(without("answer")), answers_required=False)[0].answers == ()
    with pytest.raises(ConfigError, match=r"unknown task 'jsnol': did you mean 'jsonl'\?"):
        tasks.load("jsnol", "x")
    with pytest.raises(ConfigError, match=r"unknown task 'zzz': known: music_avqa, .*jsonl"):
        tasks.load("zzz", "x")


def test_captions_are_lists_of_words_for_each_part_of_the_clip(write):
    given = {"video": [["red", " ball "], ["blue", "cube"]], "thermal": [["warm"]]}
    told, plain = jsonl.load(write(GOOD | {"captions": given}, GOOD | {"id": "q2"}))
    assert told.captions == {"video": (("red", "ball"), ("blue", "cube")), "thermal": (("warm",),)}
    assert plain.captions == {}


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([["red"]], "field 'captions' must map senses to words, not be a list"),
        (None, "field 'captions' must map senses to words, not be null"),
        ({"vidio": [["red"]]}, "field 'captions': unknown sense 'vidio': did you mean 'video'?"),
        ({"video": "red"}, "field 'captions.video' must be a list of lists of words, one or"),
        ({"video": []}, "field 'captions.video' must be a list of lists of words, one or more"),
        ({"video": ["red"]}, "field 'captions.video[0]' must be a list of strings, not a str"),
        ({"video": [["red"], [3]]}, "field 'captions.video[1][0]' must be a string, not the numb"),
        ({"video": [["red", " "]]}, "field 'captions.video[0][1]' is empty"),
        ({"video": [[]]}, "field 'captions.video': its lists must hold equally many words, 1 or"),
        ({"video": [["a"], ["b", "c"]]}, "field 'captions.video': its lists must hold equally"),
    ],
)
def test_captions_that_cannot_be_used(write, captions, message):
    with pytest.raises(DataError, match="line 2") as caught:
        jsonl.load(write(GOOD, GOOD | {"id": "q2", "captions": captions}))
    assert message in str(caught.value)
