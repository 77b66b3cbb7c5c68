// Writes demo/data/train.jsonl and demo/data/heldout.jsonl: short records of walking routes and sentences that tell
// them. Everything here was made up for this project (CC0). The same seed always gives the same bytes.
//
//   node scripts/demo/make-data.mjs [outDir]
//
// Row: {"prompt", "completion", "facts"}. Every fact stands word for word, once, in the completion, so that
// "all facts present" can be counted in generated text without judgement.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SEED = 20
const TRAIN_ROWS = 1600
const HELDOUT_ROWS = 160

const words = (text) => text.trim().split(/\s+/)
const phrases = (text) => text.split(',').map((phrase) => phrase.trim())

const FIRST = words(`
  Amber Ashen Blue Brass Bright Broken Bronze Candle Cedar Cinder Clear Clover Cloud Copper Coral Crimson Crooked
  Dusty Ember Fern Flint Frost Ginger Golden Granite Green Hazel Hidden Hollow Honey Indigo Iron Ivory Ivy Juniper
  Lantern Linen Little Lost Lucky Maple Marble Midnight Misty Moss Nettle Olive Painted Paper Pearl Quiet Red Rusty
  Scarlet Silent Silver Smoky Tall Thistle Velvet Violet Wandering Willow Winter`)
const SECOND = words(`
  Anchor Arrow Badger Barrel Basket Beetle Bell Bishop Bottle Button Compass Cooper Cricket Crown Curlew Drum Eagle
  Falcon Feather Fiddle Fiddler Finch Fox Giant Goose Hammer Hare Harp Heron Horse Kettle Key King Ladder Magpie Miller
  Needle Otter Owl Pilgrim Piper Pony Raven Ribbon Robin Sailor Saddle Shepherd Singer Sparrow Spindle Swan Tailor
  Teapot Tinker Toad Trumpet Wagon Weaver Wheel Whistle Wolf`)

const PLACE = phrases('north country, river delta, chalk hills, pine forest, lake district, salt marsh, high moors, border valley')
const LENGTH = phrases('3 km, 5 km, 7 km, 8 km, 9 km, 11 km, 12 km, 14 km, 16 km, 20 km')
const GROUND = phrases('gravel, grass, boardwalk, soft sand, bare rock, cobbles, packed clay, loose slate')
const SIGHT = phrases(`stone bridge, water mill, ruined abbey, seal colony, white lighthouse, sea cave, signal tower,
  ring of stones, waterfall, lime kiln, deer park, rope ferry`)
const LEVEL = phrases('gentle, easy, moderate, demanding, strenuous')

const an = (word) => (/^[aeiou]/.test(word) ? `an ${word}` : `a ${word}`)
/** Eight and eleven begin with a vowel too: "an 8 km walk". */
const anLength = (length) => (/^(8|11) /.test(length) ? `an ${length}` : `a ${length}`)

// Openings tell name, level, length and place; endings tell what the record has of ground and sight.
const OPENINGS = [
  (r) => `${r.name} is ${an(r.level)} walk of ${r.length} in the ${r.place}.`,
  (r) => `${r.name} is ${anLength(r.length)} walk in the ${r.place}, rated ${r.level}.`,
  (r) => `In the ${r.place} you will find ${r.name}, ${an(r.level)} route of ${r.length}.`,
  (r) => `At ${r.length}, ${r.name} is ${an(r.level)} day out in the ${r.place}.`,
  (r) => `For ${an(r.level)} outing in the ${r.place}, try ${r.name}, which runs for ${r.length}.`,
  (r) => `The ${r.place} is home to ${r.name}, ${anLength(r.length)} trail that most people call ${r.level}.`,
]
const ENDINGS = {
  both: [
    (r) => `It follows ${r.ground} and passes a ${r.sight}.`,
    (r) => `The way is mostly ${r.ground}, with a ${r.sight} to see.`,
    (r) => `Look out for the ${r.sight}, and expect ${r.ground} underfoot.`,
    (r) => `You walk on ${r.ground} until you reach a ${r.sight}.`,
  ],
  ground: [
    (r) => `It follows ${r.ground} all the way.`,
    (r) => `Expect ${r.ground} underfoot.`,
  ],
  sight: [
    (r) => `It passes a ${r.sight}.`,
    (r) => `Look out for the ${r.sight}.`,
  ],
  none: [() => ''],
}

/** A 32-bit generator (mulberry32): uniform in [0, 1). */
function generator(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const random = generator(SEED)
const pick = (list) => list[Math.floor(random() * list.length)]

function drawRecord() {
  const record = { name: `${pick(FIRST)} ${pick(SECOND)}`, place: pick(PLACE), length: pick(LENGTH) }
  if (random() < 0.85) record.ground = pick(GROUND)
  if (random() < 0.85) record.sight = pick(SIGHT)
  record.level = pick(LEVEL)
  return record
}

const attributesOf = (record) => Object.entries(record).filter(([key]) => key !== 'name')
  .map(([key, value]) => `${key}: ${value}`).join(' | ')

function rowOf(record) {
  const { ground, sight } = record
  const endings = ENDINGS[ground ? (sight ? 'both' : 'ground') : (sight ? 'sight' : 'none')]
  const text = `${pick(OPENINGS)(record)} ${pick(endings)(record)}`.trim()
  // The prompt ends without a space and the completion begins with one: the tokens are the same, joined or apart.
  return { prompt: `walk: ${record.name} | ${attributesOf(record)} =>`, completion: ` ${text}`, facts: Object.values(record) }
}

function checkRow(row) {
  for (const fact of row.facts) {
    if (row.completion.split(fact).length !== 2) throw new Error(`"${fact}" must stand once in "${row.completion}"`)
  }
  return row
}

/** `count` rows; names and attribute combinations that are in `taken` are not used, and what is used is added to `fresh`. */
function drawRows(count, taken, fresh) {
  const rows = []
  while (rows.length < count) {
    const record = drawRecord()
    const attributes = attributesOf(record)
    if (taken.has(record.name) || taken.has(attributes) || fresh.has(record.name)) continue
    fresh.add(record.name).add(attributes)
    rows.push(checkRow(rowOf(record)))
  }
  return rows
}

const outDir = process.argv[2] ?? fileURLToPath(new URL('../../demo/data', import.meta.url))
const seen = new Set()
const train = drawRows(TRAIN_ROWS, new Set(), seen)
const heldout = drawRows(HELDOUT_ROWS, seen, new Set())
mkdirSync(outDir, { recursive: true })
for (const [name, rows] of Object.entries({ train, heldout })) {
  const file = join(outDir, `${name}.jsonl`)
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  console.log(`${file}: ${rows.length} rows`)
}
