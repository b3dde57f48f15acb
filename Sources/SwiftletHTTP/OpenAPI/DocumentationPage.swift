// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// The page that shows the API's description in a browser, and tries it out. It is whole in itself: nothing comes from elsewhere, and
/// its policy lets nothing run but its own script.
struct DocumentationPage: Sendable {
    private let headers: HTTPFields
    private let body: ByteBuffer

    init() {
        let policy = [
            "default-src 'none'", "script-src \(Self.source(Self.script))", "style-src \(Self.source(Self.style))",
            "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        ]
        headers = [
            .contentType: "text/html; charset=utf-8",
            .cacheControl: "no-cache",
            .contentSecurityPolicy: policy.joined(separator: "; "),
            .xContentTypeOptions: "nosniff",
        ]
        body = ByteBuffer(string: Self.html)
    }

    var response: Response {
        Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: body))
    }

    /// What a policy calls an inline script or style.
    private static func source(_ text: String) -> String {
        "'sha256-\(Data(SHA256.hash(data: Data(text.utf8))).base64EncodedString())'"
    }

    private static let html = """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Swiftlet API</title>
        <link rel="icon" href="data:,">
        <style>\(style)</style>
        </head>
        <body>
        <a class="skip" href="#main">Skip to the operations</a>
        <header>
        <h1>Swiftlet API <small id="version"></small></h1>
        <div class="tools">
        <label>Find <input id="find" type="search" autocomplete="off" spellcheck="false"></label>
        <label>API key or token <input id="key" type="password" autocomplete="off" spellcheck="false" aria-describedby="keep"></label>
        </div>
        <p id="keep">The key stays in this page's memory and is gone when you leave.
        The description itself is at <a href="/openapi.json">/openapi.json</a>.</p>
        </header>
        <div class="columns">
        <nav id="nav" aria-label="Operations"></nav>
        <main id="main" tabindex="-1"><p id="state" role="status">Loading the description…</p></main>
        </div>
        <noscript><p>This page needs its script; the description is at <a href="/openapi.json">/openapi.json</a>.</p></noscript>
        <script>\(script)</script>
        </body>
        </html>

        """
}

extension DocumentationPage {
    fileprivate static let style = """
        :root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d1d9e0;--soft:#f6f8fa;--link:#0757ba;
        --get:#0757ba;--post:#14692d;--put:#875000;--delete:#b3202a;--patch:#6639ba;--head:#59636e}
        @media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9aa4af;--line:#30363d;--soft:#161b22;--link:#79b8ff;
        --get:#79b8ff;--post:#56d364;--put:#e3b341;--delete:#ff8f88;--patch:#c8a6ff;--head:#9aa4af}}
        *{box-sizing:border-box}
        body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
        a{color:var(--link)}
        .skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem}
        header{padding:1rem 1.5rem .25rem;border-bottom:1px solid var(--line)}
        header p{margin:.25rem 0 .5rem;color:var(--dim);font-size:13px}
        h1{margin:0 0 .5rem;font-size:1.4rem}h1 small{color:var(--dim);font-weight:400;font-size:.9rem}
        h2{margin:1.75rem 0 .25rem;font-size:1.15rem}h3{margin:1rem 0 .25rem;font-size:.95rem}
        p{margin:.35rem 0}
        .tools{display:flex;flex-wrap:wrap;gap:1rem}
        .tools label{display:flex;gap:.5rem;align-items:center}
        input,select,textarea,button{font:inherit;color:inherit;background:var(--bg);border:1px solid var(--line);border-radius:6px;padding:.3rem .5rem}
        code,pre,textarea,.path,.method{font-family:ui-monospace,"Liberation Mono",Menlo,Consolas,monospace;font-size:13px}
        textarea{width:100%;min-height:7rem;resize:vertical}
        button{background:var(--soft);cursor:pointer}button:hover{border-color:var(--dim)}
        :focus-visible{outline:2px solid var(--link);outline-offset:1px}
        .columns{display:grid;grid-template-columns:17rem minmax(0,1fr)}
        nav{position:sticky;top:0;align-self:start;max-height:100vh;overflow:auto;padding:1rem 0 1rem 1.5rem;font-size:13px}
        nav h2{font-size:.75rem;text-transform:uppercase;letter-spacing:.04em;color:var(--dim);margin:1rem 0 .2rem}
        nav ul{list-style:none;margin:0;padding:0}nav a{display:block;padding:.1rem 0;text-decoration:none;color:inherit}
        nav a:hover{color:var(--link);text-decoration:underline}
        main{padding:.25rem 1.5rem 4rem;max-width:62rem}main:focus{outline:none}
        .op{border:1px solid var(--line);border-radius:8px;margin:.5rem 0}
        .op>summary{display:flex;flex-wrap:wrap;gap:.1rem .75rem;align-items:baseline;padding:.5rem .75rem;cursor:pointer;list-style:none}
        .op>summary::-webkit-details-marker{display:none}
        .op[open]>summary{border-bottom:1px solid var(--line);background:var(--soft);border-radius:8px 8px 0 0}
        .method{font-weight:700;min-width:3.6rem}.path{overflow-wrap:anywhere}.about{color:var(--dim);margin-left:auto}
        .get{color:var(--get)}.post{color:var(--post)}.put{color:var(--put)}.delete{color:var(--delete)}.patch{color:var(--patch)}.head{color:var(--head)}
        .inside{padding:.25rem .75rem .75rem}
        .field{display:grid;grid-template-columns:13rem minmax(0,1fr);gap:.1rem .75rem;padding:.35rem 0;border-top:1px solid var(--line)}
        .field:first-of-type{border-top:0}
        .field input,.field select{width:100%;max-width:24rem}
        .dim{color:var(--dim);font-size:13px}.must{color:var(--delete)}
        pre{margin:.35rem 0;padding:.6rem .75rem;background:var(--soft);border:1px solid var(--line);border-radius:6px;overflow:auto;max-height:28rem;
        white-space:pre-wrap;overflow-wrap:anywhere}
        .row{display:flex;gap:.5rem;align-items:center;flex-wrap:wrap;margin:.5rem 0}
        .schema{margin:.1rem 0;padding-left:1.1rem;list-style:none;border-left:1px solid var(--line)}.schema li{padding:.1rem 0}
        .reply{padding:.35rem 0;border-top:1px solid var(--line)}
        details details summary{cursor:pointer}
        [hidden]{display:none!important}
        @media (max-width:50rem){.columns{display:block}nav{display:none}.field{grid-template-columns:1fr}.about{margin-left:0;width:100%}}
        """
}
