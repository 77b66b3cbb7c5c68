/** What the reference ops read: any flat, row-major array of numbers. What they write is always a `Float64Array`. */
export type Numbers = ArrayLike<number>;
