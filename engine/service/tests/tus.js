// Sends FILE to the service at URL under the keys KEY with tus-js-client. Prints how much was accepted after every piece, and the
// place of the upload at the end.
//
// Usage: node tus.js URL KEY FILE

const fs = require('fs')
const tus = require('tus-js-client')

const [url, key, path] = process.argv.slice(2)
const upload = new tus.Upload(fs.createReadStream(path), {
  endpoint: `${url}/v1/uploads`,
  metadata: { key },
  chunkSize: 5_000_000,
  retryDelays: [0, 500, 1000, 2000, 4000, 8000, 16000, 32000],
  onChunkComplete: (_size, accepted) => console.log(`accepted ${accepted}`),
  onSuccess: () => console.log(`place ${upload.url}`),
  onError: (error) => {
    console.error(String(error))
    process.exit(1)
  },
})
upload.start()
