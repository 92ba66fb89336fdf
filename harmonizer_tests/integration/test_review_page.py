"""The review page over HTTP: what it shows, what it takes, and what it refuses."""

from __future__ import annotations

import html
import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.records.label import LabelKey, label_key
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.web.review.keys import key_text, parse_key
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.holders import held_by_another_process
from harmonizer_tests.support.receipts import harmonize, table
from harmonizer_tests.support.review_homes import MERCHANTS, MIXED, SCRIPT, keys, queue, review_home
from harmonizer_tests.support.review_page import Reviewer, review_process, reviewing
from harmonizer_tests.support.web import ask

IDS = st.integers(-(2**63), 2**63 - 1)
PROXIED = "https://labels.example.com"


@pytest.fixture
def pipeline(home):
    """Three totals that are labelled TIME, and three labelled DATE, which are asked blindly."""
    return review_home(home)


@pytest.fixture
def ann(pipeline):
    with reviewing(pipeline.home) as reviewer:
        yield reviewer


def times(pipeline):
    return keys(queue(pipeline, label="TIME"))


def dates(pipeline):
    return keys(queue(pipeline, label="DATE"))


def answers(pipeline):
    return table(pipeline, "review_answers")


# What is shown


def test_the_queue_shows_kinds_counts_and_the_rules_of_the_policy(ann):
    page = ann.get().text
    assert "6 labels are open" in page
    assert "TOTAL [16.50]" in page
    assert re.search(r"<td>.*dates.*</td>\s*<td>without a person</td>\s*<td>not open yet", page)


def test_the_state_of_a_rule_follows_the_answers_to_its_sample(ann, pipeline):
    for key in dates(pipeline):
        said = {"to_label": "GRAND_TOTAL", "proposal_shown": False}
        assert ann.answer(key, **said).status == 200
    assert re.search(r"<b class=\"open\">open</b>.*\s*<td class=\"n\">3 of 3</td>", ann.get().text)


def test_a_rule_that_a_disagreement_has_closed_is_counted_anew_on_the_page(ann, pipeline):
    for key in dates(pipeline):
        pipeline.review.answer(key, "bob", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.review.answer(dates(pipeline)[0], "eve", Answer.RIGHT)
    assert "closed by a disagreement" in ann.get().text
    assert ann.post("reopen", {"rule": "dates"}).status == 204
    assert "closed by a disagreement" not in ann.get().text
    assert ann.post("reopen", {"rule": "no such rule"}).status == 409


def test_an_item_shows_its_receipt_its_labels_and_why_it_is_doubted(ann, pipeline):
    page = html.unescape(ann.get("item", times(pipeline)[0]).text)
    assert "Proposed: <bdi>TIME</bdi> → <b><bdi>GRAND_TOTAL</bdi></b>" in page
    assert "<mark><bdi>16.50</bdi></mark>" in page
    for text in ("Sandwich", "Similar words labelled otherwise", "Labels of the word", "P(wrong)"):
        assert text in page
    [row] = pipeline.warehouse.query(
        "SELECT evidence FROM outliers WHERE label = 'TIME' LIMIT 1"
    ).to_pylist()
    assert json.loads(row["evidence"])[0]["sentence"] in page


def test_filters_leave_what_they_name(ann, pipeline):
    shown = ann.get("?label_type=TIME").text
    assert "3 labels are open" in shown
    assert "sample: not told" not in shown
    [kind] = {row["kind_id"] for row in queue(pipeline, label="TIME")}
    for query in ("action=move", f"kind_id={kind}", f"merchant_key={merchant_keys(pipeline)[0]}"):
        assert "TOTAL [16.50]" in ann.get(f"?{query}").text
    assert "0 labels are open" in ann.get("?disagreements=1").text
    assert "0 labels are open" in ann.get("?label_type=%3Cscript%3E").text


def merchant_keys(pipeline):
    return [row["merchant_key"] for row in queue(pipeline, label="TIME")]


def test_the_history_of_a_word_is_shown(ann, pipeline):
    key = times(pipeline)[0]
    ann.answer(key, to_label="GRAND_TOTAL", note="read it twice")
    pipeline.apply("bob", commit=True)
    page = ann.get("item", key).text
    assert "History of the word" in page
    assert "read it twice" in page


def test_who_disagrees_is_shown_to_who_decides(ann, pipeline):
    key = times(pipeline)[0]
    pipeline.review.answer(key, "bob", Answer.RIGHT, note="it looks like one")
    pipeline.review.answer(key, "eve", Answer.WRONG, to_label="GRAND_TOTAL")
    page = ann.get("item").text
    assert "People disagree" in page
    for text in ("bob", "it looks like one", "eve"):
        assert text in page
    assert "1 labels are open" in ann.get("?disagreements=1").text


# The blind sample


def test_a_page_about_a_blind_label_is_the_same_whatever_is_proposed(ann, pipeline):
    key = dates(pipeline)[0]
    pipeline.review.answer(key, "bob", Answer.RIGHT)
    pipeline.review.answer(key, "eve", Answer.WRONG, to_label="TAX")
    before = [ann.get("item", key), ann.get("?label_type=DATE")]
    pipeline.warehouse.write(
        lambda con: con.execute(
            """
            UPDATE review_queue SET action = 'mark_invalid', to_label = NULL, outlier_score = 0.123,
                reasoning = 'another reason', decided_by = 'llm', kind_id = 'another',
                line = 'another line', n_alike = 77, tier = 'by_kind', policy = 'another'
            WHERE label = 'DATE'
            """
        )
    )
    pipeline.warehouse.write(lambda con: con.execute("DELETE FROM outliers WHERE label = 'DATE'"))
    after = [ann.get("item", key), ann.get("?label_type=DATE")]
    assert [page.text for page in before] == [page.text for page in after]
    assert {page.status for page in before} == {200}


def test_filters_by_what_is_proposed_leave_the_blind_sample_out(ann, pipeline):
    [kind] = {row["kind_id"] for row in queue(pipeline, label="DATE")}
    assert "sample: not told" not in ann.get("?action=move").text
    assert "0 labels are open" in ann.get(f"?kind_id={kind}").text
    assert ann.get(f"list?kind_id={kind}").status == 404
    assert "0 labels are open" in ann.get("?label_type=DATE&to_label=GRAND_TOTAL").text


def test_a_blind_label_has_no_list_and_is_in_none(ann, pipeline):
    assert ann.get("list", dates(pipeline)[0]).status == 404
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE review_queue SET is_blind = true WHERE image_id LIKE '%1-6'"
        )
    )
    page = ann.get("list", times(pipeline)[0]).text
    listed = re.findall(r'data-label="([^"]+)"', page)
    assert len(listed) == 2
    assert not any("1-6" in key for key in listed)


def test_an_answer_counts_as_blind_only_where_the_proposal_was_not_shown(ann, pipeline):
    first, second, _ = dates(pipeline)
    ann.answer(first, proposal_shown=False)
    ann.answer(second, proposal_shown=True)
    assert {label_key(row): row["is_blind"] for row in answers(pipeline)} == {
        first: True,
        second: False,
    }


# Answers


def test_each_answer_is_stored_as_it_is_given(ann, pipeline):
    first, second, third = times(pipeline)
    ann.answer(first, to_label="GRAND_TOTAL", note="  it's a total  ")
    ann.answer(second, verdict="right")
    ann.answer(third)
    said = {
        label_key(row): (row["verdict"], row["to_label"], row["note"]) for row in answers(pipeline)
    }
    assert said == {
        first: ("wrong", "GRAND_TOTAL", "it's a total"),
        second: ("right", None, None),
        third: ("wrong", None, None),
    }
    assert {row["reviewer"] for row in answers(pipeline)} == {"ann"}


def test_what_was_answered_or_skipped_does_not_come_again(ann, pipeline):
    seen = []
    while (found := re.search(r'data-label="([^"]+)"', ann.get("item").text)) is not None:
        seen.append(html.unescape(found[1]))
        content = {"labels": [seen[-1]], "verdict": "skip", "proposal_shown": True}
        assert ann.post("answer", content).status == 200
    assert len(seen) == len({*seen}) == 6
    assert "Nothing is left to answer here" in ann.get("item").text


def test_the_last_answer_is_taken_back_and_asked_again(ann, pipeline):
    key = times(pipeline)[0]
    answer_id = json.loads(ann.answer(key).text)["answer_id"]
    assert answer_id in ann.get("item").text
    taken = ann.post("undo", {"answer_id": answer_id})
    assert json.loads(json.loads(taken.text)["key"]) == [*key]
    assert table(pipeline, "standing_answers") == []
    assert ann.post("undo", {"answer_id": answer_id}).status == 409


def test_nobody_takes_back_what_another_one_has_answered(ann, pipeline):
    answer_id = json.loads(ann.answer(times(pipeline)[0]).text)["answer_id"]
    assert Reviewer(ann.port, "bob").post("undo", {"answer_id": answer_id}).status == 409
    assert len(table(pipeline, "standing_answers")) == 1


def test_one_answer_settles_all_labels_of_a_kind_that_the_page_lists(ann, pipeline):
    [kind] = {row["kind_id"] for row in queue(pipeline, label="TIME")}
    page = ann.get(f"list?kind_id={kind}").text
    listed = [html.unescape(text) for text in re.findall(r'data-label="([^"]+)"', page)]
    assert sorted(json.loads(text) for text in listed) == sorted([*key] for key in times(pipeline))
    content = {"labels": listed, "kind": kind, "verdict": "wrong", "proposal_shown": True}
    assert ann.post("answer", content | {"to_label": "GRAND_TOTAL"}).status == 200
    assert {label_key(row) for row in answers(pipeline)} == {*times(pipeline)}
    assert len({row["answer_id"] for row in answers(pipeline)}) == 1


def test_an_answer_about_a_list_that_is_stale_is_refused(ann, pipeline):
    [kind] = {row["kind_id"] for row in queue(pipeline, label="TIME")}
    first, *others = times(pipeline)
    said = {"kind": kind, "to_label": "GRAND_TOTAL"}
    assert ann.answer(*others, **said).status == 409
    Reviewer(ann.port, "bob").answer(first)
    refused = ann.answer(first, *others, **said)
    assert refused.status == 409
    assert "look at the list again" in refused.text
    assert {row["reviewer"] for row in answers(pipeline)} == {"bob"}


def test_an_answer_about_a_label_that_is_gone_is_refused(ann, pipeline):
    gone = times(pipeline)[0]._replace(receipt_id=99)
    assert ann.answer(gone).status == 409
    assert answers(pipeline) == []


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], None, "x", {"labels": []}),
        {"labels": ["[1]"], "verdict": "maybe", "proposal_shown": True},
        {"labels": ["[1]"], "verdict": "right", "proposal_shown": True, "more": 1},
        {"labels": ["[1]"], "verdict": "right"},
    ],
)
def test_what_the_page_does_not_send_is_refused(ann, pipeline, content):
    assert ann.post("answer", content).status == 400
    assert answers(pipeline) == []


@pytest.mark.parametrize(
    "text", ["", "x", "[1]", '["a",1,1,1,2]', '["a",1,1,true,"b"]', "[" * 9_000]
)
def test_what_is_no_key_of_a_label_is_refused(ann, pipeline, text):
    content = {"labels": [text], "verdict": "right", "proposal_shown": True}
    assert ann.post("answer", content).status == 409
    assert answers(pipeline) == []


@given(st.builds(LabelKey, st.text(), IDS, IDS, IDS, st.text()))
def test_any_key_is_read_back_from_its_text(key):
    assert parse_key(key_text(key)) == key


def test_a_type_that_the_taxonomy_does_not_have_is_refused(ann, pipeline):
    refused = ann.answer(times(pipeline)[0], to_label="NO_SUCH_TYPE")
    assert (refused.status, answers(pipeline)) == (409, [])
    assert "NO_SUCH_TYPE" in refused.text


def test_an_answer_is_about_the_next_policy_as_soon_as_the_file_changes(ann, pipeline):
    pipeline.home.review_policy.write_text("rules: [{name: new rule, tier: automatic}]\n")
    assert "new rule" in ann.get().text
    pipeline.home.review_policy.write_text("rules: [{}]\n")
    assert "review.yaml" in ann.get().text


# Several people, processes and crashes


def test_two_reviewers_answer_at_once_and_every_answer_is_kept(ann, pipeline):
    labels = times(pipeline) + dates(pipeline)
    people = [Reviewer(ann.port, name) for name in ("ann", "Bob O'Neil; 日本")]
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(person.answer, key) for key in labels for person in people]
    assert {one.result().status for one in sent} == {200}
    assert {(row["reviewer"], label_key(row)) for row in answers(pipeline)} == {
        (person.name, key) for person in people for key in labels
    }


def test_the_file_is_free_between_requests(ann, pipeline):
    assert ann.get().status == 200
    holder = held_by_another_process(pipeline.home.database, read_only=False)
    holder.kill()
    holder.communicate()


def test_a_busy_file_is_said_to_be_busy(home):
    home.settings_file.write_text("[waits]\ndatabase_seconds = 0.3\n")
    pipeline = review_home(home)
    key = times(pipeline)[0]
    with reviewing(home) as ann:
        holder = held_by_another_process(home.database, read_only=False)
        refused = [ann.get(), ann.get("item"), ann.answer(key)]
        holder.kill()
        holder.communicate()
        assert [answer.status for answer in refused] == [503] * 3
        assert all(f"process {holder.pid}" in answer.text for answer in refused)
        assert ann.answer(key).status == 200
    assert len(answers(pipeline)) == 1


def test_no_answer_that_was_confirmed_is_lost_when_the_server_is_killed(pipeline):
    labels = times(pipeline) + dates(pipeline)
    confirmed: set[str] = set()
    for _ in range(3):
        with review_process(pipeline.home) as (process, port), ThreadPoolExecutor(2) as pool:
            wanted = len(confirmed) + 4
            people = [Reviewer(port, name) for name in ("ann", "bob")]
            sent = [pool.submit(answer_until_killed, one, labels, confirmed) for one in people]
            while len(confirmed) < wanted and not any(one.done() for one in sent):
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            for one in sent:
                one.result()
    assert len(confirmed) >= 12
    assert confirmed <= {row["answer_id"] for row in answers(pipeline)}


def answer_until_killed(person, labels, confirmed):
    while True:
        for key in labels:
            try:
                answer = person.answer(key, verdict="right")
            except OSError:
                return
            assert answer.status == 200, answer.text
            confirmed.add(json.loads(answer.text)["answer_id"])


def test_a_home_without_tables_says_what_brings_labels_in(bare_home):
    with reviewing(bare_home) as ann:
        page = ann.get()
    assert page.status == 404
    assert "harmonizer run" in page.text
    assert not bare_home.database.exists()


# Hostile texts, other sites, tokens


def test_hostile_texts_are_shown_as_text(ann, pipeline):
    evil = Reviewer(ann.port, "</bdi><script>alert('me')</script>")
    key = times(pipeline)[0]
    evil.answer(key, note='"><img src=x onerror=alert(1)>')
    Reviewer(ann.port, "bob").answer(key, verdict="right")
    Reviewer(ann.port, "eve").answer(key, to_label="TAX")
    pages = [evil.get(), evil.get("?merchant_key=%22%3E%3Cscript%3E")]
    pages += [evil.get("item", key) for key in times(pipeline)]
    for page in pages:
        assert page.status == 200
        tags = re.findall(r"<\s*([a-z0-9]+)", page.text)
        assert tags.count("script") == 1
        assert "img" not in tags
        assert not re.search(r"<[^>]*\son\w+=", page.text)
    shown = html.unescape(pages[-1].text)
    assert all(text in shown for text in (SCRIPT, MIXED))
    assert any(MERCHANTS[1] in html.unescape(page.text) for page in pages)


def test_a_control_character_is_shown_as_a_sign(ann, pipeline):
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE words SET text = 'a' || chr(7) || 'b' WHERE text = 'Coffee'"
        )
    )
    assert "a\u2407b" in ann.get("item", times(pipeline)[0]).text


def test_a_post_of_another_site_is_refused(ann, pipeline):
    key = times(pipeline)[0]
    body = {"labels": [json.dumps([*key])], "verdict": "right", "proposal_shown": True}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Host": "evil.example"},
    ):
        assert ann.post("answer", body, **headers).status == 403
    assert answers(pipeline) == []
    assert ann.post("answer", body, Origin=f"http://127.0.0.1:{ann.port}").status == 200


def test_no_page_may_run_a_script_or_a_style_that_is_not_a_file_of_the_server(ann):
    for path in ("", "item", "list?kind_id=x", "image", "nothing", "static/review.js"):
        policy = ann.get(path).headers["content-security-policy"]
        assert policy == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
    for path in ("", "item"):
        page = ann.get(path).text
        assert not re.search(r"<style|\sstyle=|<script(?! src=)|https?://", page)


def test_only_the_files_of_the_page_are_served_beside_it(ann):
    assert "keydown" in ann.get("static/review.js").text
    for path in ("static/../app.py", "static/%2e%2e/app.py", "static/", "app.py", "templates/"):
        assert ann.get(path).status == 404
    assert (
        Reviewer(ann.port).get("static/review.css").headers["content-type"].startswith("text/css")
    )


def test_all_other_paths_reach_the_other_application(ann):
    assert {ask(ann.port, path).text for path in ("/", "/reviews", "/runs")} == {"other"}


def test_who_reviews_is_asked_once_and_kept_in_a_cookie_that_no_other_site_sends(ann):
    nobody = Reviewer(ann.port, "")
    assert "Your name" in nobody.get().text
    assert "Your name" in nobody.get("item").text
    named = nobody.post("reviewer", {"name": "  Zoë   \u201cO'Neil\u201d; 日本 "})
    cookie = named.headers["set-cookie"]
    assert (named.status, "SameSite=strict" in cookie, "HttpOnly" in cookie) == (204, True, True)
    page = Reviewer(ann.port, "", {"Cookie": cookie.partition(";")[0]}).get().text
    assert "Zoë \u201cO&#39;Neil\u201d; 日本" in page or "Zoë “O'Neil”; 日本" in html.unescape(page)


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\x00b", "a\u202eb"])
def test_a_name_that_nobody_could_read_is_refused(ann, name):
    assert ann.post("reviewer", {"name": name}).status == 409


def test_an_answer_without_a_name_is_refused(ann, pipeline):
    refused = Reviewer(ann.port, "").answer(times(pipeline)[0])
    assert (refused.status, answers(pipeline)) == (409, [])


@pytest.fixture
def token_home(home):
    home.settings_file.write_text(
        f'[web]\nallowed_origins = ["{PROXIED}"]\n[review]\ntoken_env = "REVIEW_WORD"\n'
    )
    review_home(home)
    return home


def test_with_a_token_nothing_is_shown_or_taken_without_it(token_home):
    with reviewing(token_home, {"REVIEW_WORD": "open sesame"}) as ann:
        for path in ("", "item", "list?kind_id=x", "image"):
            page = ann.get(path)
            assert (page.status, "GRAND_TOTAL" in page.text) == (401, False)
        assert ann.answer(("a", 1, 1, 1, "b")).status == 401
        for wrong in ("", "open", "open sesame!", "öpen"):
            refused = ann.post("token", {"token": wrong})
            assert (refused.status, "set-cookie" in refused.headers) == (401, False)
        entered = ann.post(
            "token", {"token": "open sesame"}, Origin=PROXIED, Host="labels.example.com"
        )
        cookie = entered.headers["set-cookie"]
        assert "sesame" not in cookie
        for flag in ("SameSite=strict", "HttpOnly", "Secure"):
            assert flag in cookie
        inside = {"Cookie": f"{cookie.partition(';')[0]}; harmonizer_reviewer=ann"}
        page = Reviewer(ann.port, headers=inside).get(Host="labels.example.com")
        assert "6 labels are open" in page.text


def test_a_token_that_is_not_set_is_named_before_anything_is_served(token_home):
    with pytest.raises(ConfigurationError, match="REVIEW_WORD"), reviewing(token_home):
        pass
    result = cli("ui", home=token_home.root)
    assert result.returncode == 2
    assert "REVIEW_WORD" in shown_error(result)


def test_without_a_token_the_page_is_served_on_this_machine_only(home):
    home.settings_file.write_text(f'[web]\nallowed_origins = ["{PROXIED}"]\n')
    review_home(home)
    with reviewing(home) as ann:
        refused = ann.get(Host="labels.example.com")
        assert refused.status == 403
        assert "token_env" in refused.text
        assert ann.get(Host="localhost").status == 200


# The command


def test_the_command_names_the_address_of_a_home_that_is_served(ann, home):
    result = cli("review", "--no-open", "--port", ann.port, home=home.root)
    assert (result.returncode, result.stdout.strip()) == (0, f"http://127.0.0.1:{ann.port}/review/")


def test_the_command_says_what_must_run_where_nothing_serves_this_home(ann, home, tmp_path):
    for port, folder in ((1, home.root), (ann.port, tmp_path / "another")):
        result = cli("review", "--no-open", "--port", port, home=folder)
        assert result.returncode == 2
        assert "harmonizer ui" in shown_error(result)


def test_a_run_takes_answers_out_of_the_queue_of_everyone_once_they_are_applied(ann, pipeline):
    key = times(pipeline)[0]
    ann.answer(key, to_label="GRAND_TOTAL")
    pipeline.apply("ann", commit=True)
    harmonize(pipeline)
    assert key not in keys(queue(pipeline))
