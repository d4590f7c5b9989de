/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser alone: every request of the lists whole, byte by byte, and in two pieces cut at
 * every place. The ends must be the same.
 */
#include "http/parse.h"

#include <stdio.h>
#include <string.h>

#include "http_requests.h"
#include "runner.h"

static const struct mpo_http_limits limits = {.body_bytes = (size_t)4 << 20,
                                              .header_bytes = 16384,
                                              .header_lines = 64,
                                              .path_bytes = 1024};

/* How an input ended. */
struct ending {
    enum mpo_http_stage stage;
    int status;
    char code[32];
    char body[64];
    size_t taken;
};

/* Until the pieces end, or the parser. */
static size_t feed_piece(struct mpo_http_parser *parser, const char *bytes, size_t count)
{
    size_t at = 0;
    while (at < count && mpo_http_parser_stage(parser) < MPO_HTTP_WHOLE) {
        size_t taken = 0;
        assert_ok(mpo_http_parser_feed(parser, bytes + at, count - at, &taken));
        at += taken;
        if (mpo_http_parser_stage(parser) == MPO_HTTP_HEADER_DONE)
            mpo_http_parser_go_on(parser);
    }
    return at;
}

/* A first piece of `cut` bytes, then pieces of `step`. */
static struct ending parse_pieces(const struct http_request_case *item, size_t cut,
                                  size_t step)
{
    struct mpo_http_parser *parser = NULL;
    struct ending ending = {0};
    size_t bytes = 0;
    assert_ok(mpo_http_parser_open(&limits, &parser));
    ending.taken = feed_piece(parser, item->bytes, cut);
    for (size_t at = cut; at < item->count; at += step) {
        size_t left = item->count - at;
        ending.taken += feed_piece(parser, item->bytes + at, left < step ? left : step);
    }
    ending.stage = mpo_http_parser_stage(parser);
    const struct mpo_http_refusal *refusal = mpo_http_parser_refusal(parser);
    ending.status = refusal->status;
    snprintf(ending.code, sizeof ending.code, "%s", refusal->status ? refusal->code : "");
    snprintf(ending.body, sizeof ending.body, "%s", mpo_http_parser_body(parser, &bytes));
    mpo_http_parser_close(&parser);
    assert_null(parser);
    return ending;
}

static void check_ending(const struct http_request_case *item, const struct ending *ending,
                         size_t cut)
{
    bool is_taken = item->code == NULL;
    bool is_right =
        is_taken ? ending->stage == MPO_HTTP_WHOLE && ending->status == 0 &&
                       strcmp(ending->body, item->body) == 0 && ending->taken == item->count
                 : ending->stage == MPO_HTTP_BROKEN && ending->status == item->status &&
                       strcmp(ending->code, item->code) == 0;
    if (!is_right)
        fail_msg("%s, cut at %zu: stage %d, status %d %s, body '%s', %zu of %zu bytes",
                 item->name, cut, (int)ending->stage, ending->status, ending->code,
                 ending->body, ending->taken, item->count);
}

/* Long ones are cut everywhere near their ends, and here and there between. */
static void check_every_cut(const struct http_requests *list)
{
    for (int i = 0; i < list->count; i++) {
        const struct http_request_case *item = &list->item[i];
        struct ending ending = parse_pieces(item, item->count, 1);
        check_ending(item, &ending, item->count);
        ending = parse_pieces(item, 0, 1);
        check_ending(item, &ending, 0);
        for (size_t cut = 1; cut < item->count; cut++) {
            if (cut > 200 && cut + 300 < item->count && cut % 997 != 0)
                continue;
            ending = parse_pieces(item, cut, item->count);
            check_ending(item, &ending, cut);
        }
    }
}

static void what_must_be_refused_is_refused_however_it_is_cut(void **state)
{
    struct http_requests list;
    (void)state;
    http_requests_refused(&list);
    assert_true(list.count >= 30);
    check_every_cut(&list);
    http_requests_release(&list);
}

static void what_must_be_taken_is_taken_however_it_is_cut(void **state)
{
    struct http_requests list;
    (void)state;
    http_requests_taken(&list);
    check_every_cut(&list);
    http_requests_release(&list);
}

static void a_body_may_have_the_limit_and_not_a_byte_more(void **state)
{
    const struct mpo_http_limits small = {
        .body_bytes = 8, .header_bytes = 200, .header_lines = 8, .path_bytes = 20};
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678", 0},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123456789", 413},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         "7\r\n1234567\r\n1\r\n8\r\n0\r\n\r\n",
         0},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         "7\r\n1234567\r\n2\r\n89\r\n0\r\n\r\n",
         413},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         "ffff\r\n1234567890",
         413},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mpo_http_parser *parser = NULL;
        size_t bytes = 0;
        assert_ok(mpo_http_parser_open(&small, &parser));
        feed_piece(parser, cases[i].text, strlen(cases[i].text));
        assert_int_equal(mpo_http_parser_refusal(parser)->status, cases[i].status);
        if (cases[i].status == 0)
            assert_string_equal(mpo_http_parser_body(parser, &bytes), "12345678");
        mpo_http_parser_close(&parser);
    }
}

static void a_header_is_found_by_its_name_in_any_case(void **state)
{
    static const char text[] = "GET /a/b?c=d&e HTTP/1.1\r\nhOST: a:1\r\nX-One: 1\r\n"
                               "x-ONE: 2\r\nEmpty: \r\nConnection: close\r\n\r\nleft";
    struct mpo_http_parser *parser = NULL;
    (void)state;
    assert_ok(mpo_http_parser_open(&limits, &parser));
    assert_int_equal(feed_piece(parser, text, sizeof text - 1), sizeof text - 1 - 4);
    const struct mpo_http_head *head = mpo_http_parser_head(parser);
    assert_string_equal(head->method, "GET");
    assert_string_equal(head->target, "/a/b?c=d&e");
    assert_string_equal(head->path, "/a/b");
    assert_string_equal(head->query, "c=d&e");
    assert_string_equal(head->host, "a:1");
    assert_false(head->keeps_alive);
    assert_false(head->has_body);
    assert_string_equal(mpo_http_parser_field(parser, "x-one"), "1");
    assert_string_equal(mpo_http_parser_field(parser, "EMPTY"), "");
    assert_null(mpo_http_parser_field(parser, "X-Two"));
    mpo_http_parser_close(&parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_must_be_refused_is_refused_however_it_is_cut),
        cmocka_unit_test(what_must_be_taken_is_taken_however_it_is_cut),
        cmocka_unit_test(a_body_may_have_the_limit_and_not_a_byte_more),
        cmocka_unit_test(a_header_is_found_by_its_name_in_any_case),
    };
    return run_cases("http parse", tests);
}
