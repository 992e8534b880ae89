/* The floor: the plainest loop that reads a box of a chunked array from disk.
 *
 * For each chunk under the box: pread, decode to a scratch that stays in cache, scatter into the output. The index is
 * held by the caller, files stay open, nothing is checked (no crc32c, no bounds beyond the plan). It is not a reader: it
 * is what the hardware allows to one that decodes whole chunks, or with prefix set, to one that stops with the zstd block
 * of the last byte needed; the yardstick for the engines. With several threads a shared counter hands out chunks (one
 * box) or boxes (many).
 *
 * Built at first use: cc -O3 -march=native -shared -fPIC -pthread floor.c -lzstd. The functions of libzstd are declared
 * here, so that the library alone is enough and no header is needed.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ZSTD_DCtx_s ZSTD_DCtx;
ZSTD_DCtx *ZSTD_createDCtx(void);
size_t ZSTD_freeDCtx(ZSTD_DCtx *);
size_t ZSTD_decompressDCtx(ZSTD_DCtx *, void *dst, size_t dst_capacity, const void *src, size_t src_size);
size_t ZSTD_decompressBegin(ZSTD_DCtx *);
size_t ZSTD_nextSrcSizeToDecompress(ZSTD_DCtx *);
size_t ZSTD_decompressContinue(ZSTD_DCtx *, void *dst, size_t dst_capacity, const void *src, size_t src_size);
unsigned ZSTD_isError(size_t);

enum { CODEC_RAW = 0, CODEC_ZSTD = 1 };
enum { MAX_THREADS = 64 };
#define MISSING UINT64_MAX

/* A three-dimensional array of chunks; all lengths in voxels, in the order of the array's axes (not of storage).
 * file, offset, size: one entry a chunk, in C order of the chunk grid. stored_stride: step in voxels inside a decoded
 * chunk, for each axis. prefix: whether to decode no more than is needed. The fill value is zero. */
typedef struct {
    int64_t grid[3], chunk[3], stored_stride[3];
    int64_t itemsize, codec, prefix;
    uint64_t max_size;
    const int32_t *file;
    const uint64_t *offset, *size;
} floor_array;

typedef struct {
    ZSTD_DCtx *context;
    unsigned char *body, *decoded;
    size_t body_bytes, decoded_bytes;
} floor_worker;

typedef struct {
    const floor_array *array;
    const int64_t *starts; /* boxes x 3 */
    int64_t shape[3], boxes;
    unsigned char *out; /* boxes x shape, C order */
    _Atomic int64_t next;
    _Atomic int error;
} floor_read;

/* One row of n voxels: contiguous in the output, step voxels apart in the chunk. */
static void copy_row(unsigned char *out, const unsigned char *in, int64_t n, int64_t step, int64_t itemsize)
{
    if (step == 1) {
        memcpy(out, in, (size_t)(n * itemsize));
        return;
    }
    switch (itemsize) {
    case 1:
        for (int64_t i = 0; i < n; i++) out[i] = in[i * step];
        break;
    case 2:
        for (int64_t i = 0; i < n; i++) ((uint16_t *)out)[i] = ((const uint16_t *)in)[i * step];
        break;
    case 4:
        for (int64_t i = 0; i < n; i++) ((uint32_t *)out)[i] = ((const uint32_t *)in)[i * step];
        break;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(out + i * itemsize, in + i * step * itemsize, (size_t)itemsize);
    }
}

/* The first need bytes of a chunk of that many bytes, or more of them. Returns 0, or 2 (decode failed). */
static int decode(const floor_array *a, floor_worker *w, size_t size, size_t need, size_t bytes)
{
    if (!a->prefix || need == bytes)
        return ZSTD_decompressDCtx(w->context, w->decoded, bytes, w->body, size) == bytes ? 0 : 2;
    size_t step, got, used = 0, done = 0;
    ZSTD_decompressBegin(w->context);
    while (done < need && (step = ZSTD_nextSrcSizeToDecompress(w->context)) && step <= size - used) {
        got = ZSTD_decompressContinue(w->context, w->decoded + done, bytes - done, w->body + used, step);
        if (ZSTD_isError(got)) return 2;
        used += step;
        done += got;
    }
    return done >= need ? 0 : 2;
}

static int read_chunk(const floor_array *a, floor_worker *w, const int64_t at[3], const int64_t *start,
                      const int64_t *shape, unsigned char *out)
{
    int64_t index = (at[0] * a->grid[1] + at[1]) * a->grid[2] + at[2];
    int64_t voxels = a->chunk[0] * a->chunk[1] * a->chunk[2], bytes = voxels * a->itemsize;
    int64_t low[3], high[3]; /* the part of the chunk inside the box, in the chunk's voxels */
    for (int d = 0; d < 3; d++) {
        int64_t origin = at[d] * a->chunk[d];
        low[d] = start[d] > origin ? start[d] - origin : 0;
        high[d] = start[d] + shape[d] - origin < a->chunk[d] ? start[d] + shape[d] - origin : a->chunk[d];
    }
    const int64_t *s = a->stored_stride, item = a->itemsize;
    int missing = a->offset[index] == MISSING;
    if (!missing) {
        int64_t last = (high[0] - 1) * s[0] + (high[1] - 1) * s[1] + (high[2] - 1) * s[2];
        unsigned char *body = a->codec == CODEC_RAW ? w->decoded : w->body;
        size_t size = a->size[index];
        if (pread(a->file[index], body, size, (off_t)a->offset[index]) != (ssize_t)size) return 1;
        int error = a->codec == CODEC_ZSTD ? decode(a, w, size, (size_t)((last + 1) * item), (size_t)bytes) : 0;
        if (error) return error;
    }
    for (int64_t z = low[0]; z < high[0]; z++)
        for (int64_t y = low[1]; y < high[1]; y++) {
            int64_t oz = at[0] * a->chunk[0] + z - start[0], oy = at[1] * a->chunk[1] + y - start[1];
            int64_t ox = at[2] * a->chunk[2] + low[2] - start[2], n = high[2] - low[2];
            unsigned char *row = out + ((oz * shape[1] + oy) * shape[2] + ox) * item;
            if (missing)
                memset(row, 0, (size_t)(n * item));
            else
                copy_row(row, w->decoded + (z * s[0] + y * s[1] + low[2] * s[2]) * item, n, s[2], item);
        }
    return 0;
}

/* The chunks under a box: first chunk and number of chunks on each axis. Returns their count. */
static int64_t chunks_under(const floor_array *a, const int64_t *start, const int64_t *shape, int64_t first[3],
                            int64_t count[3])
{
    for (int d = 0; d < 3; d++) {
        first[d] = start[d] / a->chunk[d];
        count[d] = (start[d] + shape[d] - 1) / a->chunk[d] - first[d] + 1;
    }
    return count[0] * count[1] * count[2];
}

static int read_nth(const floor_array *a, floor_worker *w, int64_t n, const int64_t first[3], const int64_t count[3],
                    const int64_t *start, const int64_t *shape, unsigned char *out)
{
    int64_t at[3] = {first[0] + n / (count[1] * count[2]), first[1] + n / count[2] % count[1], first[2] + n % count[2]};
    return read_chunk(a, w, at, start, shape, out);
}

static void grow(unsigned char **buffer, size_t *have, size_t need)
{
    if (*have >= need) return;
    free(*buffer);
    *buffer = malloc(need);
    *have = *buffer ? need : 0;
}

static int prepare(floor_worker *w, const floor_array *a)
{
    if (!w->context) w->context = ZSTD_createDCtx();
    grow(&w->body, &w->body_bytes, a->max_size);
    grow(&w->decoded, &w->decoded_bytes, (size_t)(a->chunk[0] * a->chunk[1] * a->chunk[2] * a->itemsize));
    return !(w->context && w->body && w->decoded);
}

static void work(floor_read *r, floor_worker *w)
{
    const floor_array *a = r->array;
    int64_t box_bytes = r->shape[0] * r->shape[1] * r->shape[2] * a->itemsize, first[3], count[3], next;
    if (prepare(w, a)) {
        r->error = 3;
    } else if (r->boxes == 1) {
        int64_t total = chunks_under(a, r->starts, r->shape, first, count);
        while ((next = atomic_fetch_add(&r->next, 1)) < total && !r->error) {
            int error = read_nth(a, w, next, first, count, r->starts, r->shape, r->out);
            if (error) r->error = error;
        }
    } else {
        while ((next = atomic_fetch_add(&r->next, 1)) < r->boxes && !r->error) {
            const int64_t *start = r->starts + 3 * next;
            int64_t total = chunks_under(a, start, r->shape, first, count);
            for (int64_t n = 0; n < total; n++) {
                int error = read_nth(a, w, n, first, count, start, r->shape, r->out + next * box_bytes);
                if (error) r->error = error;
            }
        }
    }
}

static void *helper(void *read)
{
    floor_worker w = {0};
    work(read, &w);
    ZSTD_freeDCtx(w.context);
    free(w.body);
    free(w.decoded);
    return NULL;
}

/* Reads boxes of one shape into out (boxes x shape, C order). Returns 0, 1 (short read), 2 (decode failed) or 3 (no memory).
 * Not for concurrent callers: the calling thread's context and scratch are kept between calls. */
int floor_read_boxes(const floor_array *array, const int64_t *starts, int64_t boxes, const int64_t *shape, void *out,
                     int threads)
{
    static floor_worker own;
    floor_read r = {.array = array, .starts = starts, .boxes = boxes, .out = out};
    memcpy(r.shape, shape, sizeof r.shape);
    int64_t first[3], count[3], tasks = boxes > 1 ? boxes : chunks_under(array, starts, shape, first, count);
    pthread_t started[MAX_THREADS];
    int helpers = 0;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    while (tasks > 2 && helpers < threads - 1 && pthread_create(&started[helpers], NULL, helper, &r) == 0)
        helpers++;
    work(&r, &own);
    for (int i = 0; i < helpers; i++) pthread_join(started[i], NULL);
    return r.error;
}
