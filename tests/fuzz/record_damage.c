/* SPDX-License-Identifier: Apache-2.0 */
#include "record_damage.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/record.h"

#define COUNT(array)   (sizeof(array) / sizeof *(array))
#define PICK(array, i) ((array)[(i) % COUNT(array)])
/* Data sets up to here are filled with values; larger ones only claim to be there. */
#define FILLED_MAX 256
#define VERBS      8
/* Shapes of attributes, which HDF5 stores whole: the first ones, which are small. */
#define ATTRIBUTE_SHAPES 9
#define ATTRIBUTES_MANY  300
/* HDF5 looks for every chunk of an extent that shrinks, also where there are none. */
#define SHRUNK_MAX ((hsize_t)1 << 20)

static const char *const objects[] = {
    "step",
    "objective",
    "policy",
    "weights",
    "average",
    "value",
    "tokens",
    "state/end_bias",
    "responses/response",
    "responses/step",
    "responses/prompt",
    "responses/token_count",
    "responses/ended",
    "responses/log_proposal",
    "responses/log_policy",
    "responses/token_offset",
    "responses/token",
    "responses/text_offset",
    "responses/text_bytes",
    "responses/text",
    "prompts/offset",
    "prompts/text",
    "provenance/config",
    "provenance/ranks",
    "provenance",
    "responses",
    "prompts",
    "state",
};

static const int64_t numbers[] = {
    0,  1,  2,   3,   -1,   -2,    4,         16,        17,        63,
    64, 65, 255, 256, 4096, 65537, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN,
};

static const double reals[] = {0.0, -0.0, 0.5, 1.0, -1.0, 1e300, -1e300, 9.3e18, 1e-320};

static const hsize_t extents[] = {0,
                                  1,
                                  2,
                                  3,
                                  4,
                                  5,
                                  16,
                                  17,
                                  64,
                                  65537,
                                  (hsize_t)1 << 31,
                                  (hsize_t)1 << 33,
                                  (hsize_t)1 << 61,
                                  ((hsize_t)1 << 63) - 1};

/* [rank], then the extents; rank 0 is a scalar, -1 no space at all. */
static const struct shape {
    int rank;
    hsize_t extent[3];
} shapes[] = {
    {-1, {0, 0, 0}},
    {0, {0, 0, 0}},
    {1, {0, 0, 0}},
    {1, {1, 0, 0}},
    {1, {2, 0, 0}},
    {1, {3, 0, 0}},
    {1, {4, 0, 0}},
    {1, {16, 0, 0}},
    {1, {17, 0, 0}},
    {1, {(hsize_t)1 << 31, 0, 0}},
    {1, {(hsize_t)1 << 33, 0, 0}},
    {1, {(hsize_t)1 << 60, 0, 0}},
    {2, {0, 3, 0}},
    {2, {2, 1, 0}},
    {2, {2, 2, 0}},
    {2, {2, 3, 0}},
    {2, {3, 4, 0}},
    {2, {16, 1, 0}},
    {2, {16, 3, 0}},
    {2, {16, 4, 0}},
    {2, {2, 0, 0}},
    {2, {1, (hsize_t)1 << 33, 0}},
    {2, {0, (hsize_t)1 << 61, 0}},
    {2, {(hsize_t)1 << 31, (hsize_t)1 << 28, 0}},
    {3, {2, 3, 1}},
};

/* ---- types ---- */

/* In UTF-8, as the reader's types are: HDF5 converts no other text into them. */
static hid_t text_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, bytes);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

static hid_t compound_type(const char *member, hid_t member_type)
{
    hid_t type = H5Tcreate(H5T_COMPOUND, 8 + H5Tget_size(member_type));
    H5Tinsert(type, "rank", 0, H5T_STD_I32LE);
    H5Tinsert(type, member, 8, member_type);
    return type;
}

static hid_t made_type(uint8_t choice)
{
    const hsize_t three = 3;
    hid_t inner = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    switch (choice % 8) {
    case 0:
        return text_type(1);
    case 1:
        return text_type(65);
    case 2:
        return text_type(4096);
    case 3:
        return text_type(H5T_VARIABLE);
    case 4:
        inner = text_type(200);
        type = compound_type("policy", inner);
        H5Tclose(inner);
        return type;
    case 5:
        return compound_type("sha256", H5T_IEEE_F64LE);
    case 6:
        return H5Tarray_create2(H5T_IEEE_F64LE, 1, &three);
    default:
        return H5Tcreate(H5T_OPAQUE, 24);
    }
}

/* Owned by the caller. */
static hid_t type_of(uint8_t choice)
{
    const hid_t predefined[] = {H5T_IEEE_F64LE, H5T_STD_I64LE, H5T_STD_I32LE,
                                H5T_STD_U8LE,   H5T_STD_U64BE, H5T_IEEE_F32BE,
                                H5T_STD_I8LE,   H5T_STD_B16LE, H5T_STD_REF_OBJ};
    return choice % 2 == 0 ? H5Tcopy(PICK(predefined, choice / 2)) : made_type(choice / 2);
}

/* ---- values ---- */

static hsize_t points_of(hid_t data_set)
{
    hid_t space = H5Dget_space(data_set);
    const hssize_t points = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    return points < 0 ? 0 : (hsize_t)points;
}

/* Read all as numbers, change one of them or all, write all. */
static void set_values(hid_t data_set, const struct record_damage *damage, bool all)
{
    const hsize_t points = points_of(data_set);
    const bool is_real = damage->first >= 128;
    const hid_t type = is_real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
    union {
        int64_t number[FILLED_MAX];
        double real[FILLED_MAX];
    } value = {{0}};
    if (points == 0 || points > FILLED_MAX)
        return;
    H5Dread(data_set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value);
    for (hsize_t i = 0; i < points; i++) {
        if (!all && i != damage->second % points)
            continue;
        if (is_real)
            value.real[i] = PICK(reals, damage->first);
        else
            value.number[i] = PICK(numbers, damage->first);
    }
    H5Dwrite(data_set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value);
}

static void set_text(hid_t data_set, const struct record_damage *damage)
{
    hid_t type = H5Dget_type(data_set);
    const size_t bytes = H5Tget_size(type);
    const hsize_t points = points_of(data_set);
    char *text = points <= FILLED_MAX ? calloc((size_t)points + 1, bytes + 1) : NULL;
    if (text != NULL && H5Tget_class(type) == H5T_STRING && !H5Tis_variable_str(type)) {
        memset(text, damage->first, (size_t)points * bytes);
        H5Dwrite(data_set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text);
    }
    free(text);
    H5Tclose(type);
}

/* ---- verbs ---- */

static hid_t space_of(const struct shape *shape)
{
    if (shape->rank <= 0)
        return H5Screate(shape->rank < 0 ? H5S_NULL : H5S_SCALAR);
    return H5Screate_simple(shape->rank, shape->extent, NULL);
}

/* In chunks, of which none is there until it is written to. */
static hid_t layout_of(const struct shape *shape)
{
    hid_t layout = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[3] = {1, 1, 1};
    for (int i = 0; i < shape->rank; i++)
        chunk[i] = shape->extent[i] > 4 ? 4 : shape->extent[i] > 0 ? shape->extent[i] : 1;
    if (shape->rank > 0)
        H5Pset_chunk(layout, shape->rank, chunk);
    return layout;
}

/* A link is moved to where no reader looks: deleting the last one to a data set frees its
 * chunks, and HDF5 1.10.8 loops for minutes over an index that earlier damage stretched. */
static void move_aside(hid_t file, const char *path)
{
    char aside[32] = "";
    int taken = 0;
    do
        snprintf(aside, sizeof aside, "/aside%d", taken++);
    while (H5Lexists(file, aside, H5P_DEFAULT) > 0);
    H5Lmove(file, path, file, aside, H5P_DEFAULT, H5P_DEFAULT);
}

static void replace_data_set(hid_t file, const char *path,
                             const struct record_damage *damage)
{
    const struct shape *shape = &PICK(shapes, damage->second);
    hid_t type = type_of(damage->first);
    hid_t space = space_of(shape);
    hid_t layout = layout_of(shape);
    move_aside(file, path);
    hid_t data_set = H5Dcreate2(file, path, type, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    set_values(data_set, &(struct record_damage){.first = 1}, true);
    set_text(data_set, &(struct record_damage){.first = 'x'});
    H5Dclose(data_set);
    H5Pclose(layout);
    H5Sclose(space);
    H5Tclose(type);
}

static void replace_link(hid_t file, const char *path, const struct record_damage *damage)
{
    const char *target = PICK(objects, damage->second);
    move_aside(file, path);
    if (damage->first % 3 == 0)
        H5Gclose(H5Gcreate2(file, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    else if (damage->first % 3 == 1)
        H5Lcreate_hard(file, target, file, path, H5P_DEFAULT, H5P_DEFAULT);
    else
        H5Lcreate_soft(damage->second % 2 == 0 ? path : "/nowhere", file, path, H5P_DEFAULT,
                       H5P_DEFAULT);
}

static void put_attribute(hid_t object, const char *name, uint8_t type_choice,
                          uint8_t shape_choice)
{
    hid_t type = type_of(type_choice);
    hid_t space = space_of(&shapes[shape_choice % ATTRIBUTE_SHAPES]);
    H5Aclose(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
    H5Tclose(type);
}

static void put_schema(hid_t object, const char *text)
{
    hid_t type = text_type(H5T_VARIABLE);
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute =
        H5Acreate2(object, "log_schema", type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, type, &text);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void damage_attributes(hid_t file, const struct record_damage *damage)
{
    static const char *const schemas[] = {"mpo-1.0",  "mpo-1.",   "mpo-", "mpo-1.99999999",
                                          "mpo--1.0", "mpo-1.0x", "",     "mpo- 1.0"};
    hid_t object = H5Oopen(file, damage->object % 2 ? "/" : "/provenance", H5P_DEFAULT);
    char name[32];
    if (damage->object % 4 == 1) {
        H5Adelete(object, "log_schema");
        put_schema(object, PICK(schemas, damage->second));
    } else if (damage->object % 8 == 0) {
        for (int i = 0; i < ATTRIBUTES_MANY; i++) {
            snprintf(name, sizeof name, "a%d", i);
            put_attribute(object, name, 0, 1);
        }
    } else {
        H5Adelete(object, "log_schema");
        put_attribute(object, "log_schema", damage->first, damage->second);
    }
    H5Oclose(object);
}

static void set_extent(hid_t data_set, const struct record_damage *damage)
{
    const hsize_t extent[2] = {PICK(extents, damage->first), PICK(extents, damage->second)};
    if (points_of(data_set) <= SHRUNK_MAX)
        H5Dset_extent(data_set, extent);
}

static void change_data_set(hid_t file, const char *path,
                            const struct record_damage *damage)
{
    const int verb = damage->verb % VERBS;
    hid_t data_set = H5Dopen2(file, path, H5P_DEFAULT);
    if (data_set < 0)
        return;
    if (verb <= 1)
        set_extent(data_set, damage);
    else if (verb <= 3)
        set_values(data_set, damage, verb == 2);
    else
        set_text(data_set, damage);
    H5Dclose(data_set);
}

void record_damage_apply(hid_t file, const struct record_damage *damage)
{
    const char *path = PICK(objects, damage->object);
    switch (damage->verb % VERBS) {
    case 5:
        replace_data_set(file, path, damage);
        break;
    case 6:
        replace_link(file, path, damage);
        break;
    case 7:
        damage_attributes(file, damage);
        break;
    default:
        change_data_set(file, path, damage);
        break;
    }
}
