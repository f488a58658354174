// dynalite on a free port of the loopback interface, which it prints. Tables
// become ACTIVE at once. It ends with its standard input.
const dynalite = require("dynalite");

const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
server.listen(0, "127.0.0.1", () => console.log(`Dynalite listening at: http://127.0.0.1:${server.address().port}`));
process.stdin.resume().on("end", () => process.exit(0));
