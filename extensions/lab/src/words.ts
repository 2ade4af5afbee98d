/**
 * English and Chinese. JupyterLab's locale decides, so that the item speaks as the page around it does.
 *
 * The English sentence is the key; a sentence without its Chinese fails a test, not a person.
 */

export type Say = (text: string, values?: Record<string, string | number>) => string;

/** Whether a locale of JupyterLab ("zh_CN", "zh-Hans") is read by who reads simplified Chinese. */
export function isChinese(locale: string): boolean {
  return /^zh([-_](cn|sg|hans.*))?$/i.test(locale);
}

/** Says a text in the language of a locale, with `{name}` replaced. */
export function sayer(locale: string): Say {
  const chinese = isChinese(locale);
  return (text, values = {}) => {
    const found = chinese ? (CHINESE[text] ?? text) : text;
    return found.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
  };
}

/** "1 kernel" or "2 kernels": the two sentences differ in English only. */
export function counted(say: Say, n: number, one: string, many: string): string {
  return say(n === 1 ? one : many, { n });
}

export const CHINESE: Record<string, string> = {
  "{n} h": "{n} 小时",
  "{n} min": "{n} 分钟",
  "{n} s": "{n} 秒",
  "{h} h {m} min": "{h} 小时 {m} 分钟",
  "{d} d {h} h": "{d} 天 {h} 小时",
  "{n} day": "{n} 天",
  "{n} days": "{n} 天",
  "{n} core": "{n} 核",
  "{n} cores": "{n} 核",
  "1 node": "1 个节点",
  "{n} nodes": "{n} 个节点",
  "{nodes}, {each}": "{nodes}，{each}",
  "{nodes}, each {each}": "{nodes}，每个 {each}",
  "{n} GPU": "{n} 块 GPU",
  "{n} GPUs": "{n} 块 GPU",
  "until {time}": "至 {time}",
  "when done": "完成后释放",
  manual: "手动释放",
  "{time} after you leave": "离开 {time}后",
  "Kept until {time}": "保留至 {time}",
  "Kept until you release it": "保留到您手动释放",
  "Goes back {time} after you leave": "离开 {time}后自动释放",
  "Goes back when nothing runs any more": "不再有任务运行时释放",
  "{left} left, then automatic": "剩余 {left}，之后自动释放",
  "{left} left, then it goes back": "剩余 {left}，之后释放",
  "An open page keeps it.": "页面打开期间会一直保留。",
  "An open page keeps it, until {time} at most.": "页面打开期间会一直保留，最长至 {time}。",
  "You may close this page; running cells go on.": "可以关闭此页面，正在运行的单元会继续执行。",
  "At most until {time}.": "最长至 {time}。",
  "Cluster: {text}": "集群：{text}",
  "held {time}": "已占用 {time}",
  "Looking at what changed outside work … You need not wait for it.": "正在查看 work 以外的改动……不必等待。",
  "What would be lost outside work could not be looked at.": "无法查看 work 以外会丢失的内容。",
  "Outside work, and lost:": "在 work 以外，将会丢失：",
  "Held {time}": "已占用 {time}",
  "The cluster of this page": "本页面所在的集群",
  "View project": "查看项目",
  CPU: "CPU",
  Memory: "内存",
  GPU: "GPU",
  "{used} of {all} GB": "{used} / {all} GB",
  "{used} of {all} MB": "{used} / {all} MB",
  "{n} %": "{n}%",
  "not measured yet": "尚未测量",
  Extend: "延长",
  "Extend until {time}": "延长至 {time}",
  Nodes: "节点",
  "this page": "本页面",
  starting: "启动中",
  lost: "已丢失",
  Lab: "Lab",
  Desktop: "桌面",
  Terminal: "终端",
  "{door} on {node}": "{node} 的{door}",
  "Open desktop": "打开桌面",
  "Open JupyterLab": "打开 JupyterLab",
  "Open terminal": "打开终端",
  "Continue without me": "我离开后继续运行",
  "release when done": "完成后释放",
  "Warn me outside this tab, too": "在此标签页之外也提醒我",
  Reconnect: "重新连接",
  "Restart node …": "重启节点…",
  "kernels end": "内核将终止",
  "Release …": "释放…",
  "{n} kernel is busy": "{n} 个内核正忙",
  "{n} kernels are busy": "{n} 个内核正忙",
  "{n} terminal is busy": "{n} 个终端正忙",
  "{n} terminals are busy": "{n} 个终端正忙",
  "{n} program runs": "{n} 个程序正在运行",
  "{n} programs run": "{n} 个程序正在运行",
  ", ": "，",
  "Save image …": "保存镜像…",
  "Back to the project": "返回项目",
  "Connection lost. Trying again …": "连接已断开，正在重试…",
  "The node restarts …": "节点正在重启…",
  "The portal is away; your work here goes on.": "门户暂时无法访问，此处的工作不受影响。",
  "Kept until {time}.": "已保留至 {time}。",
  "It goes back when nothing runs any more.": "不再有任务运行时将自动释放。",
  "Connected again.": "已重新连接。",
  Cancel: "取消",
  Close: "关闭",
  "Restart node": "重启节点",
  "Restart {node}?": "重启 {node}？",
  "All programs of this node end, and what they hold in memory is lost.": "此节点的所有程序都将终止，内存中的内容会丢失。",
  "Open documents are saved first.": "打开的文档会先保存。",
  "Reset node …": "重置节点…",
  "Reset node": "重置节点",
  "Reset {node}?": "重置 {node}？",
  "only work stays": "只保留 work",
  "Restart this node …": "重启此节点…",
  "Reset this node …": "重置此节点…",
  restarting: "正在重启",
  "Try again": "再试一次",
  "The node has not come back yet; the project's page says why.": "节点尚未恢复，原因请见项目页面。",
  Release: "释放",
  "Release {project}?": "释放“{project}”？",
  "All files in work stay; open documents are saved first. Kernels and terminals end.":
    "work 中的所有文件都会保留，打开的文档会先保存。内核和终端将终止。",
  "Now: {busy}.": "当前：{busy}。",
  "Continue without you?": "离开后继续运行？",
  "Running cells go on and write their output into the notebook. When nothing runs any more the cluster goes back. Open documents are saved first.":
    "正在运行的单元会继续执行，并把输出写入笔记本。不再有任务运行时，集群自动释放。打开的文档会先保存。",
  Continue: "继续运行",
  "{project} was released": "“{project}”已释放",
  "Your files are kept. Nothing is counted any more.": "您的文件已保留，不再计入机时。",
  "By {name}: {text}": "{name}：{text}",
  "Released by {name}.": "由 {name} 释放。",
  "{project} goes back at {time}": "“{project}”将于 {time} 释放",
  "{project} goes back at {time}; something still runs": "“{project}”将于 {time} 释放，仍有任务在运行",
  "When done": "完成后释放",
  "That did not work: {text}": "操作未成功：{text}",
  "The node does not answer.": "节点没有响应。",
  "Documents could not be saved: {names}": "以下文档无法保存：{names}",
  "Cluster menu": "集群菜单",
  "Extend the cluster": "延长集群",
  "Continue without me, release when done": "我离开后继续运行，完成后释放",
  "Release the cluster …": "释放集群…"
};
