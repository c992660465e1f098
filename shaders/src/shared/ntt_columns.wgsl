// The outer four layers: sixteen rows of N/16 columns, each column in a thread's registers. The folding layer pairs column `j`
// with column `N/16 - j` backwards, so a thread takes both; thread 0 takes columns 0 and N/32, their own partners.

struct Columns { j: u32, left: Sixteen, right: Sixteen }

fn column(at: u32) -> Sixteen {
    return Sixteen(rows(at, 0u), rows(at, 4u), rows(at, 8u), rows(at, 12u));
}

fn rows(at: u32, row: u32) -> vec4<u32> {
    let step = 1u << (LOG_N - 4u);
    let first = at + row * step;
    return vec4(x[first], x[first + step], x[first + 2u * step], x[first + 3u * step]);
}

fn store_column(at: u32, v: Sixteen) {
    store_rows(at, 0u, v.a);
    store_rows(at, 4u, v.b);
    store_rows(at, 8u, v.c);
    store_rows(at, 12u, v.d);
}

fn store_rows(at: u32, row: u32, v: vec4<u32>) {
    let step = 1u << (LOG_N - 4u);
    let first = at + row * step;
    x[first] = v.x;
    x[first + step] = v.y;
    x[first + 2u * step] = v.z;
    x[first + 3u * step] = v.w;
}

// The second column of the thread of column `j`.
fn partner(j: u32) -> u32 {
    return select((1u << (LOG_N - 4u)) - j, 1u << (LOG_N - 5u), j == 0u);
}

fn reversed(v: Sixteen) -> Sixteen {
    return Sixteen(v.d.wzyx, v.c.wzyx, v.b.wzyx, v.a.wzyx);
}

fn choose(a: Sixteen, b: Sixteen, second: bool) -> Sixteen {
    let s = vec4(second);
    return Sixteen(select(a.a, b.a, s), select(a.b, b.b, s), select(a.c, b.c, s), select(a.d, b.d, s));
}

// What the folding layer pairs with the elements of both columns: element `N - k` with `k`, and `first` with 0.
fn mirrored(j: u32, left: Sixteen, right: Sixteen, first: u32) -> Columns {
    let l = reversed(left);
    let r = reversed(right);
    // Column 0: row i with row 16 - i.
    let zeroth = Sixteen(vec4(first, l.a.xyz), vec4(l.a.w, l.b.xyz), vec4(l.b.w, l.c.xyz), vec4(l.c.w, l.d.xyz));
    return Columns(j, choose(r, zeroth, j == 0u), choose(l, r, j == 0u));
}
