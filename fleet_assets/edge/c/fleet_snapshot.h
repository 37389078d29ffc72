/* Looks features up in a snapshot file of fleet_assets, format 1; fleet_assets/edge/layout.py describes the bytes.
 *
 * In: the bytes of a file (mapped, at an address that is a multiple of 8) and their number. Out: rows by key. No allocation, no
 * system call, no other library. The machine must be little-endian. fleet_snapshot_open checks header, views and columns against
 * the length; a file's signature and hash are checked when its bundle is installed, not here.
 */
#ifndef FLEET_SNAPSHOT_H
#define FLEET_SNAPSHOT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum fleet_type { FLEET_FLOAT64 = 1, FLEET_FLOAT32, FLEET_INT64, FLEET_INT32, FLEET_BOOL, FLEET_TIMESTAMP_NS, FLEET_CATEGORY };

struct fleet_header {
    char magic[8];
    uint32_t format, views;
    uint64_t file_bytes, columns, metadata_offset, metadata_bytes;
    unsigned char schema_hash[32], digest[32], reserved[16];
};

struct fleet_view {
    char name[104];
    uint32_t version, bucket_bits;
    uint64_t rows;
    uint32_t first_column, columns, key_bytes, row_bytes;
    int64_t ttl_ns;
    uint64_t buckets_offset, rows_offset;
    unsigned char reserved[32];
};

struct fleet_column {
    char name[88];
    uint32_t type, offset;
};

struct fleet_snapshot {
    const unsigned char *data;
    const struct fleet_header *header;
    const struct fleet_view *views;
    const struct fleet_column *columns;
};

struct fleet_key {
    unsigned char bytes[256];
    uint32_t used;
};

static inline uint32_t fleet_type_bytes(uint32_t type) {
    static const uint32_t bytes[] = {0, 8, 4, 8, 4, 1, 8, 4};
    return type < sizeof bytes / sizeof *bytes ? bytes[type] : 0;
}

static inline int fleet_inside(uint64_t offset, uint64_t bytes, uint64_t least, uint64_t size) {
    return offset % 8 == 0 && offset >= least && bytes <= size && offset <= size - bytes;
}

/* 0 if the bytes are a whole snapshot, else -1. */
static inline int fleet_snapshot_open(struct fleet_snapshot *snapshot, const void *data, uint64_t size) {
    const struct fleet_header *header = data;
    if (size < sizeof *header || memcmp(header->magic, "FLTSNAP", 8) || header->format != 1) return -1;
    if (header->file_bytes != size || header->views == 0 || header->views > 4096 || header->columns > 65536) return -1;
    uint64_t columns_at = sizeof *header + header->views * sizeof(struct fleet_view);
    uint64_t end = columns_at + header->columns * sizeof(struct fleet_column);
    if (header->metadata_offset != end || header->metadata_bytes > size || end > size - header->metadata_bytes) return -1;
    end += header->metadata_bytes;
    snapshot->data = data;
    snapshot->header = header;
    snapshot->views = (const struct fleet_view *)(snapshot->data + sizeof *header);
    snapshot->columns = (const struct fleet_column *)(snapshot->data + columns_at);
    for (uint32_t v = 0; v < header->views; v++) {
        const struct fleet_view *view = &snapshot->views[v];
        if (view->columns == 0 || view->columns > header->columns || view->first_column > header->columns - view->columns) return -1;
        if (view->key_bytes == 0 || view->key_bytes > 256 || view->key_bytes % 8 || view->row_bytes % 8) return -1;
        if (view->bucket_bits < 1 || view->bucket_bits > 32 || view->rows > UINT32_MAX || view->ttl_ns < 0) return -1;
        uint64_t least = view->key_bytes + 8 + 8 * ((view->columns + 63) / 64);
        if (view->row_bytes < least) return -1;
        for (uint32_t c = 0; c < view->columns; c++) {
            const struct fleet_column *column = &snapshot->columns[view->first_column + c];
            uint32_t bytes = fleet_type_bytes(column->type);
            if (bytes == 0 || column->offset < least || column->offset % bytes) return -1;
            if ((uint64_t)column->offset + bytes > view->row_bytes) return -1;
        }
        if (!fleet_inside(view->buckets_offset, 4 * ((1ull << view->bucket_bits) + 1), end, size)) return -1;
        if (!fleet_inside(view->rows_offset, view->rows * view->row_bytes, end, size)) return -1;
    }
    return 0;
}

/* NULL if there is none of this name. */
static inline const struct fleet_view *fleet_snapshot_view(const struct fleet_snapshot *snapshot, const char *name) {
    for (uint32_t v = 0; v < snapshot->header->views; v++)
        if (strncmp(snapshot->views[v].name, name, sizeof snapshot->views[v].name) == 0) return &snapshot->views[v];
    return NULL;
}

/* Keys: begin with fleet_key_clear, then add the entity columns in the view's order. -1 if the key becomes too long. */
static inline void fleet_key_clear(struct fleet_key *key) { memset(key, 0, sizeof *key); }

static inline int fleet_key_add_int64(struct fleet_key *key, int64_t value) {
    if (key->used + 8 > sizeof key->bytes) return -1;
    memcpy(key->bytes + key->used, &value, 8);
    key->used += 8;
    return 0;
}

static inline int fleet_key_add_text(struct fleet_key *key, const char *text, uint16_t length) {
    if (key->used + 2u + length > sizeof key->bytes) return -1;
    memcpy(key->bytes + key->used, &length, 2);
    memcpy(key->bytes + key->used + 2, text, length);
    key->used += 2u + length;
    return 0;
}

/* The row of a key, NULL if it is not there. */
static inline const unsigned char *fleet_find(const struct fleet_snapshot *snapshot, const struct fleet_view *view, const struct fleet_key *key) {
    uint64_t value = 0x9E3779B97F4A7C15ull, word;
    if (key->used > view->key_bytes) return NULL;
    for (uint32_t at = 0; at < key->used; at += 8) {
        memcpy(&word, key->bytes + at, 8);
        value = (value ^ word) * 0xBF58476D1CE4E5B9ull;
        value ^= value >> 32;
    }
    value *= 0x9FB21C651E98DF25ull;
    value = (value ^ (value >> 29)) * 0xBF58476D1CE4E5B9ull;
    value ^= value >> 32;
    const uint32_t *bucket = (const uint32_t *)(snapshot->data + view->buckets_offset) + (value >> (64 - view->bucket_bits));
    uint64_t end = bucket[1] < view->rows ? bucket[1] : view->rows;
    for (uint64_t row = bucket[0]; row < end; row++) {
        const unsigned char *at = snapshot->data + view->rows_offset + row * view->row_bytes;
        if (memcmp(at, key->bytes, view->key_bytes) == 0) return at;
    }
    return NULL;
}

static inline int64_t fleet_event_time_ns(const struct fleet_view *view, const unsigned char *row) {
    int64_t time;
    memcpy(&time, row + view->key_bytes, 8);
    return time;
}

/* Value of a column as double, NaN if it is null. A category is its number in the metadata. */
static inline double fleet_value(const struct fleet_snapshot *snapshot, const struct fleet_view *view, const unsigned char *row, uint32_t column) {
    const struct fleet_column *about = &snapshot->columns[view->first_column + column];
    const unsigned char *at = row + about->offset;
    uint64_t valid;
    double float64;
    float float32;
    int64_t int64;
    int32_t int32;
    memcpy(&valid, row + view->key_bytes + 8 + 8 * (column / 64), 8);
    if (!((valid >> (column % 64)) & 1)) return NAN;
    switch (about->type) {
        case FLEET_FLOAT64: memcpy(&float64, at, 8); return float64;
        case FLEET_FLOAT32: memcpy(&float32, at, 4); return float32;
        case FLEET_INT64: case FLEET_TIMESTAMP_NS: memcpy(&int64, at, 8); return (double)int64;
        case FLEET_INT32: case FLEET_CATEGORY: memcpy(&int32, at, 4); return int32;
        default: return *at != 0;
    }
}

#endif
