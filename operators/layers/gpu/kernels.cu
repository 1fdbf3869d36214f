// The kernels of the layers on a GPU, NHWC, a thread for each value of the result.
//
// They are C, too, so that the tests run every thread of them on the CPU, one after another
// (host.c), and hold what comes out against the layers' other form. `numbers` of every kernel:
// batch, rows, columns, channels of its input; the others are told where they are used.

#ifdef __CUDACC__
#define INSIDE static __device__ __forceinline__
#define KERNEL(name)                                                                               \
    extern "C" __global__ void name(                                                               \
        int count, int batch, int rows, int columns, int channels, int other, int periodic,        \
        const float *a, const float *b, const float *c, float *out)
#define EACH                                                                                       \
    const int at = blockIdx.x * blockDim.x + threadIdx.x;                                          \
    if (at >= count) return
#define ADD(to, value) atomicAdd(&(to), value)
#else
#define INSIDE static inline
#define KERNEL(name)                                                                               \
    static void name(                                                                              \
        int at, int batch, int rows, int columns, int channels, int other, int periodic,           \
        const float *a, const float *b, const float *c, float *out)
#define EACH (void)(batch + rows + columns + channels + other + periodic), (void)a, (void)b, (void)c
#define ADD(to, value) (to) += (value)
#endif

// The index in 0..len that stands for `at`, as `Boundary::index`.
INSIDE int inside(int at, int len, int periodic) {
    if (periodic) return (at % len + len) % len;
    return at < 0 ? 0 : at >= len ? len - 1 : at;
}

// Of the at most `many` indices around `first + turn` that are to be looked at once each, the one at
// `turn`; -1 where there is none.
INSIDE int around(int first, int turn, int many, int len, int periodic) {
    if (len <= many) return turn < len ? turn : -1;
    const int at = first + turn;
    return periodic ? inside(at, len, 1) : at >= 0 && at < len ? at : -1;
}

// What each pixel sees: (B, H, W, C) -> (B, H, W, 3, 3, C).
KERNEL(patches) {
    EACH;
    int rest = at / channels;
    const int kx = rest % 3, ky = rest / 3 % 3;
    rest /= 9;
    const int x = inside(rest % columns + kx - 1, columns, periodic);
    const int y = inside(rest / columns % rows + ky - 1, rows, periodic);
    const int n = rest / columns / rows;
    out[at] = a[((n * rows + y) * columns + x) * channels + at % channels];
}

// The adjoint of `patches`: each pixel's sum over those that see it, in one order.
KERNEL(patches_back) {
    EACH;
    const int k = at % channels, x = at / channels % columns;
    const int y = at / channels / columns % rows, n = at / channels / columns / rows;
    float sum = 0.0f;
    for (int i = 0; i < 3; i++) {
        const int row = around(y - 1, i, 3, rows, periodic);
        for (int ky = 0; ky < 3 && row >= 0; ky++) {
            if (inside(row + ky - 1, rows, periodic) != y) continue;
            for (int j = 0; j < 3; j++) {
                const int column = around(x - 1, j, 3, columns, periodic);
                for (int kx = 0; kx < 3 && column >= 0; kx++) {
                    if (inside(column + kx - 1, columns, periodic) != x) continue;
                    sum += a[(((n * rows + row) * columns + column) * 9 + ky * 3 + kx) * channels + k];
                }
            }
        }
    }
    out[at] = sum;
}

// A channel-first plane with one pixel around it: (B, H, W, C) -> (B, C, H + 2, W + 2).
KERNEL(rim) {
    EACH;
    const int x = inside(at % (columns + 2) - 1, columns, periodic);
    const int y = inside(at / (columns + 2) % (rows + 2) - 1, rows, periodic);
    const int plane = at / (columns + 2) / (rows + 2);
    const int n = plane / channels, k = plane % channels;
    out[at] = a[((n * rows + y) * columns + x) * channels + k];
}

// The bias b (C) added, and max(0, y) where `other` says so; what is not a number passes.
KERNEL(biased) {
    EACH;
    const float y = a[at] + b[at % channels];
    out[at] = other && y <= 0.0f ? 0.0f : y;
}

// The gradient b where the result a is positive, else 0.
KERNEL(biased_back) {
    EACH;
    out[at] = a[at] > 0.0f ? b[at] : 0.0f;
}

// The two coarse indices around a fine one, and the share of the second.
typedef struct {
    int low, high;
    float share;
} Tap;

INSIDE Tap tap(int fine, int r, int len, int periodic) {
    const float at = (fine + 0.5f) / r - 0.5f, low = floorf(at);
    Tap tap;
    tap.low = inside((int)low, len, periodic);
    tap.high = inside((int)low + 1, len, periodic);
    tap.share = at - low;
    return tap;
}

// Bilinear up-sampling by `other`, half-pixel centres: along the rows, then along the columns.
KERNEL(upsample) {
    EACH;
    const int r = other, k = at % channels, fine = at / channels;
    const Tap x = tap(fine % (columns * r), r, columns, periodic);
    const int line = fine / (columns * r);
    const Tap y = tap(line % (rows * r), r, rows, periodic);
    const float *image = a + line / (rows * r) * rows * columns * channels + k;
    const float *upper = image + y.low * columns * channels;
    const float *lower = image + y.high * columns * channels;
    const int i = x.low * channels, j = x.high * channels;
    const float left = upper[i] + (lower[i] - upper[i]) * y.share;
    const float right = upper[j] + (lower[j] - upper[j]) * y.share;
    out[at] = left + (right - left) * x.share;
}

// What a coarse index gave to a fine one.
INSIDE float given(Tap tap, int coarse) {
    return (tap.low == coarse ? 1.0f - tap.share : 0.0f) + (tap.high == coarse ? tap.share : 0.0f);
}

// The adjoint of `upsample`; rows and columns are those of the coarse result.
KERNEL(upsample_back) {
    EACH;
    const int r = other, k = at % channels, x = at / channels % columns;
    const int y = at / channels / columns % rows, n = at / channels / columns / rows;
    float sum = 0.0f;
    for (int i = 0; i < 3 * r; i++) {
        const int row = around((y - 1) * r, i, 3 * r, rows * r, periodic);
        if (row < 0) continue;
        const float down = given(tap(row, r, rows, periodic), y);
        if (down == 0.0f) continue;
        for (int j = 0; j < 3 * r; j++) {
            const int column = around((x - 1) * r, j, 3 * r, columns * r, periodic);
            if (column < 0) continue;
            const float across = given(tap(column, r, columns, periodic), x);
            if (across == 0.0f) continue;
            sum += down * across * a[((n * rows * r + row) * columns * r + column) * channels + k];
        }
    }
    out[at] = sum;
}

// Where one axis of a place lies: the indices around it, the share of the second, and 1 where the
// place moves with the step. As `Axis::new` of layers/bilinear.rs, which says why.
typedef struct {
    int low, high;
    float share, free;
} Axis;

INSIDE Axis axis(int at, float step, int len, int periodic) {
    const float size = (float)len, last = (float)(len - 1);
    // Infinite less infinite is not a number, which equals nothing.
    const float to = (float)at + (step - step == 0.0f ? step : 0.0f);
    Axis axis;
    if (periodic) {
        const float base = floorf(to);
        const float low = fminf(fmaxf(base - size * floorf(base / size), 0.0f), last);
        axis.low = (int)low;
        axis.high = low == last ? 0 : axis.low + 1;
        axis.share = to - base;
        axis.free = 1.0f;
    } else {
        const float place = fminf(fmaxf(to, 0.0f), last), low = floorf(place);
        axis.low = (int)low;
        axis.high = (int)fminf(low + 1.0f, last);
        axis.share = place - low;
        axis.free = place == to && last > 0.0f ? 1.0f : 0.0f;
    }
    return axis;
}

// Where the sample of one lead at one pixel takes its values: `sample` counts (B, H, W, `leads`).
typedef struct {
    Axis x, y;
    int corners[4];
} Place;

INSIDE Place place(int sample, int rows, int columns, int channels, int leads, int periodic,
                   const float *flow) {
    const int pixel = sample / leads;
    const int column = pixel % columns, row = pixel / columns % rows, n = pixel / columns / rows;
    Place place;
    place.x = axis(column, flow[2 * sample], columns, periodic);
    place.y = axis(row, flow[2 * sample + 1], rows, periodic);
    for (int i = 0; i < 4; i++) {
        const int y = i < 2 ? place.y.low : place.y.high, x = i % 2 ? place.x.high : place.x.low;
        place.corners[i] = ((n * rows + y) * columns + x) * channels;
    }
    return place;
}

// The image a carried along the flow b (B, H, W, 2 L), L is `other`: (B, H, W, L, C).
KERNEL(warp) {
    EACH;
    const Place p = place(at / channels, rows, columns, channels, other, periodic, b);
    const float *image = a + at % channels;
    const float i = image[p.corners[0]], j = image[p.corners[1]];
    const float k = image[p.corners[2]], l = image[p.corners[3]];
    const float upper = i + (j - i) * p.x.share, lower = k + (l - k) * p.x.share;
    out[at] = upper + (lower - upper) * p.y.share;
}

// The gradient of the flow, from c, that of the result: a thread for each sample's two values.
KERNEL(warp_flow) {
    EACH;
    const Place p = place(at, rows, columns, channels, other, periodic, b);
    float dx = 0.0f, dy = 0.0f;
    for (int n = 0; n < channels; n++) {
        const float *image = a + n, g = c[at * channels + n];
        const float i = image[p.corners[0]], j = image[p.corners[1]];
        const float k = image[p.corners[2]], l = image[p.corners[3]];
        dx += g * (j - i + (l - k - (j - i)) * p.y.share);
        dy += g * (k - i + (l - j - (k - i)) * p.x.share);
    }
    out[2 * at] = dx * p.x.free;
    out[2 * at + 1] = dy * p.y.free;
}

// The gradient of the image, from c: a thread for each value of the result gives to four pixels,
// in no order.
KERNEL(warp_image) {
    EACH;
    const Place p = place(at / channels, rows, columns, channels, other, periodic, b);
    float *image = out + at % channels;
    const float right = p.x.share, left = 1.0f - right, down = p.y.share, up = 1.0f - down;
    ADD(image[p.corners[0]], c[at] * up * left);
    ADD(image[p.corners[1]], c[at] * up * right);
    ADD(image[p.corners[2]], c[at] * down * left);
    ADD(image[p.corners[3]], c[at] * down * right);
}

// The nearest of `other` codes b for each row of `channels` values of a, the lowest of equal ones:
// the largest z . c - |c|^2 / 2. The result is of whole numbers.
KERNEL(nearest) {
    EACH;
    const float *z = a + at * channels;
    float most = 0.0f;
    unsigned best = 0;
    for (int code = 0; code < other; code++) {
        float score = 0.0f;
        for (int i = 0; i < channels; i++) {
            const float value = b[code * channels + i];
            score += value * (z[i] - 0.5f * value);
        }
        if (code == 0 || score > most) {
            most = score;
            best = code;
        }
    }
    ((unsigned *)out)[at] = best;
}
