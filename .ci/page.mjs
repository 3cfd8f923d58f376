// Opens the status page with Chromium: node page.mjs URL FOLDER PROFILE
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const [url, folder, profile] = process.argv.slice(2);
const args = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
];
const looks = [
    { name: "desk-light", viewport: { width: 1200, height: 900 }, colorScheme: "light" },
    { name: "desk-dark", viewport: { width: 1200, height: 900 }, colorScheme: "dark" },
    { name: "phone-light", viewport: { width: 360, height: 740 }, colorScheme: "light" },
    { name: "phone-dark", viewport: { width: 360, height: 740 }, colorScheme: "dark" },
];
const texts = [
    "relay.example.com", "2 destinations in trouble", "b.example", "partner.example", "cannot connect",
    "their new gateway, ticket 4711", "Sent: ", "mail2.partner.example (partner)", "11 days left", "refused",
    "Must issue a STARTTLS command first", "None since the start.", "As of ",
];

for (const { name, ...options } of looks) {
    // The page itself without scripts, as its readers may have it.
    for (const javaScriptEnabled of [false, true]) {
        const context = await chromium.launchPersistentContext(`${profile}-${name}-${javaScriptEnabled}`, {
            executablePath: "/usr/bin/chromium", headless: true, args, javaScriptEnabled, ...options,
            // axe is a script from outside, which the page's policy rightly forbids.
            bypassCSP: javaScriptEnabled,
        });
        const page = await context.newPage();
        const said = [], asked = [];
        page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
        page.on("pageerror", (error) => said.push(String(error)));
        page.on("request", (request) => asked.push(request.url()));
        const response = await page.goto(url, { waitUntil: "networkidle" });
        assert.equal(response.status(), 200);
        assert.match(response.headers()["content-security-policy"], /^default-src 'none'; style-src 'sha256-/);
        assert.deepEqual(said, [], `${name}: the console is silent`);
        assert.deepEqual(asked.filter((one) => one !== url && one !== "data:,"), [], `${name}: nothing else is asked for`);
        const text = await page.locator("body").innerText();
        for (const wanted of texts) assert.ok(text.includes(wanted), `${name}: "${wanted}" is not in\n${text}`);
        if (javaScriptEnabled) {
            const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
            assert.equal(wide, false, `${name}: it need not be scrolled sideways`);
            await page.evaluate(axe);
            const { violations } = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
            const told = violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html).join(" | ")}`);
            assert.deepEqual(told, [], `${name}: axe`);
            const charts = await page.getByRole("img", { name: /^Sent: .* under TLS/ }).count();
            assert.equal(charts, 2, `${name}: each chart has a name`);
        } else {
            // The style sheet is allowed by its hash: were it not, everything would stand at the edge.
            await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
        }
        await context.close();
    }
    console.log(`ok    ${name}`);
}
