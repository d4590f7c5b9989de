/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a record asks of HDF5 beside its data sets: errors with their cause, attributes, and
 * properties of what is made or opened.
 */
#include "record_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/reason.h"

#define CHUNKS_KEPT      8
#define CHUNK_BYTES_KEPT (1 << 20)

/* ---- errors ---- */

/* Walking from the deepest record: the first one has the actual cause. */
static herr_t first_reason(unsigned index, const H5E_error2_t *error, void *out)
{
    if (index == 0)
        snprintf(out, MPO_RECORD_TEXT_BYTES, "%s", error->desc);
    return 0;
}

enum mpo_status mpo_record_hdf5_raise(const char *file, int line, const char *format, ...)
{
    char what[MPO_RECORD_TEXT_BYTES] = "";
    char reason[MPO_RECORD_TEXT_BYTES] = "HDF5 gives no reason";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_reason, reason);
    H5Eclear2(H5E_DEFAULT);
    /* The file driver writes a long line; its errno says the same in a few words. */
    const char *number = strstr(reason, "errno = ");
    long error = number != NULL ? strtol(number + strlen("errno = "), NULL, 10) : 0;
    if (error > 0)
        snprintf(reason, sizeof reason, "%s", strerror((int)error));
    bool is_limit = mpo_reason_status((int)error, MPO_ERR_IO) == MPO_ERR_MEMORY ||
                    strstr(reason, "memory allocation failed") != NULL;
    return mpo_error_raise(is_limit ? MPO_ERR_MEMORY : MPO_ERR_IO, file, line, "%s: %s",
                           what, reason);
}

void mpo_record_hdf5_prepare(void)
{
    /* A file with a failed write is left open on purpose, and HDF5 must not close it at
     * exit. Only the very first call can set this. */
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void mpo_record_hdf5_release(hid_t *id)
{
    /* H5Idec_ref closes an object of any kind when this was its last reference. */
    if (*id >= 0)
        H5Idec_ref(*id);
    *id = H5I_INVALID_HID;
}

/* ---- attributes and properties ---- */

enum mpo_status mpo_record_put_attribute(hid_t object, const char *name, const char *value)
{
    enum mpo_status status = MPO_OK;
    const char *text = value != NULL ? value : "";
    hid_t type = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    hid_t attribute = H5I_INVALID_HID;
    MPO_TRY_HDF5(type = H5Tcopy(H5T_C_S1), "attribute %s", name);
    MPO_TRY_HDF5(H5Tset_size(type, H5T_VARIABLE), "attribute %s", name);
    MPO_TRY_HDF5(H5Tset_cset(type, H5T_CSET_UTF8), "attribute %s", name);
    MPO_TRY_HDF5(space = H5Screate(H5S_SCALAR), "attribute %s", name);
    MPO_TRY_HDF5(attribute =
                     H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT),
                 "attribute %s", name);
    MPO_TRY_HDF5(H5Awrite(attribute, type, &text), "attribute %s", name);
cleanup:
    mpo_record_hdf5_release(&attribute);
    mpo_record_hdf5_release(&space);
    mpo_record_hdf5_release(&type);
    return status;
}

enum mpo_status mpo_record_put_units(hid_t object, const char *units, const char *long_name)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_record_put_attribute(object, "units", units));
    MPO_TRY(mpo_record_put_attribute(object, "long_name", long_name));
cleanup:
    return status;
}

enum mpo_status mpo_record_make_properties(hid_t class_id, hid_t *out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_HDF5(*out = H5Pcreate(class_id), "creation properties");
    MPO_TRY_HDF5(H5Pset_obj_track_times(*out, 0), "creation properties");
cleanup:
    return status;
}

/* Every flush walks all chunks in memory of every data set, though only the last ones can
 * have changed. With the default of 521 slots a long run would spend its time on that. A slot
 * holds one chunk, so fewer slots are fewer chunks; the bytes are HDF5's own limit. */
enum mpo_status mpo_record_set_chunk_cache(hid_t access)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_HDF5(H5Pset_cache(access, 0, CHUNKS_KEPT, CHUNK_BYTES_KEPT, 0.75),
                 "access properties");
cleanup:
    return status;
}
