// Pages opened as files may start no workers; the search then runs in a frame of its own.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const address = new URL(url, document.baseURI).href;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "Search";
      this.queue = [];
      this.ready = false;
      frame.addEventListener("load", () => {
        const inner = frame.contentWindow;
        inner.postMessage = (data) =>
          this.dispatchEvent(new MessageEvent("message", { data }));
        inner.importScripts = () => Promise.resolve(); // English needs no further scripts
        const script = frame.contentDocument.createElement("script");
        script.src = address;
        script.addEventListener("load", () => {
          this.ready = true;
          for (const data of this.queue.splice(0)) this.deliver(data);
        });
        frame.contentDocument.head.append(script);
      }, { once: true });
      frame.srcdoc = "<!doctype html><title>Search</title>";
      this.frame = frame;
      const attach = () => document.body.append(frame);
      if (document.body) attach();
      else document.addEventListener("DOMContentLoaded", attach, { once: true });
    }

    deliver(data) {
      const inner = this.frame.contentWindow;
      inner.dispatchEvent(new inner.MessageEvent("message", { data }));
    }

    postMessage(data) {
      if (this.ready) this.deliver(data);
      else this.queue.push(data);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
