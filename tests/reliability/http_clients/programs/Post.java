// Posts a file with Java's own client, as it is by default: it asks for HTTP/2 with the header Upgrade.
// Arguments: URL, file, how often, and headers as name and value. Prints the status of each answer, or "lost" and why.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;

class Post {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create(arguments[0]))
            .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[1])));
        for (int at = 3; at < arguments.length; at += 2) {
            builder.header(arguments[at], arguments[at + 1]);
        }
        HttpRequest request = builder.build();
        for (int count = 0; count < Integer.parseInt(arguments[2]); count++) {
            try {
                System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
            } catch (java.io.IOException error) {
                System.out.println("lost " + error);
            }
        }
        System.exit(0);
    }
}
