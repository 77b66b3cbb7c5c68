/** A safetensors file from raw parts, so that a test can break any of them. */
export function safetensorsBytes(json: string | Uint8Array, body: number | Uint8Array, claimed?: number | bigint): Uint8Array {
  const header = typeof json === 'string' ? Buffer.from(json) : json;
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(claimed ?? header.length));
  return Buffer.concat([length, header, typeof body === 'number' ? Buffer.alloc(body) : body]);
}
