import { open } from 'node:fs/promises';
import { LowrankError } from '../error.ts';
import type { SafetensorsTensor } from '../io/safetensors.ts';

/** The bytes of one tensor of a safetensors file. @throws LowrankError ERR_FILE */
export async function readTensorBytes(file: string, { begin, end }: SafetensorsTensor): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - begin);
  const handle = await open(file, 'r').catch((cause: NodeJS.ErrnoException) => {
    throw new LowrankError('ERR_FILE', `${file}: can't be opened (${cause.code})`, { cause });
  });
  try {
    for (let at = 0; at < bytes.length; ) {
      const { bytesRead } = await handle.read(bytes, at, bytes.length - at, begin + at);
      if (bytesRead === 0) throw new LowrankError('ERR_FILE', `${file}: became shorter while it was read`);
      at += bytesRead;
    }
    return bytes;
  } finally {
    await handle.close();
  }
}
